"""Conditions of early stopping: what they say of a history of scores."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strombus.callbacks import (
    BestScore,
    InvalidScore,
    MaxEpochs,
    MaxScore,
    MaxTime,
    Scored,
    ScoreImprovement,
    Standing,
)
from strombus.errors import ConfigurationError

NAN = math.nan


def standing(scores, maximize=False, every=1, epochs=None):
    scored = tuple(Scored(10 + i * every, i * every, score) for i, score in enumerate(scores, 1))
    return Standing(len(scores) * every if epochs is None else epochs, scored, maximize)


def first_end(condition, scores, **options):
    """Return the evaluation after which the condition ends a fit with these scores."""
    for count in range(1, len(scores) + 1):
        if condition.ends(standing(scores[:count], **options)):
            return count
    return None


def test_max_epochs_counts_epochs_that_were_not_evaluated():
    assert not MaxEpochs(3).ends(Standing(2))
    assert MaxEpochs(3).ends(Standing(3))
    assert MaxEpochs(3).ends(Standing(4))


@pytest.mark.parametrize(
    ("scores", "options", "end"),
    [
        ([5.0, 4.0, 3.0, 2.0, 1.0], {}, None),
        ([5.0, 5.0, 5.0, 4.0], {}, 3),
        ([5.0, 6.0, 4.0, 6.0, 4.0, 3.0], {}, 5),
        ([1.0, 2.0, 3.0], {"maximize": True}, None),
        ([1.0, 1.0, 0.5, 2.0], {"maximize": True}, 3),
        ([NAN, NAN, NAN], {}, 3),
        ([NAN, 1.0, NAN, 0.5, NAN], {}, None),
        ([5.0, NAN, NAN, 4.0], {}, 3),
    ],
)
def test_no_improvement_in_two_epochs(scores, options, end):
    assert first_end(ScoreImprovement(2), scores, **options) == end


def test_a_small_improvement_does_not_count():
    scores = [1.0, 0.95, 0.9, 0.85]
    assert first_end(ScoreImprovement(2, min_improvement=0.2), scores) == 3
    assert first_end(ScoreImprovement(2, min_improvement=0.08), scores) is None


def test_patience_is_of_epochs_not_of_evaluations():
    scores = [1.0, 1.0, 1.0, 1.0]
    assert first_end(ScoreImprovement(5), scores, every=3) == 3  # after epochs 3, 6, 9: 9 >= 3 + 5
    assert not ScoreImprovement(5).ends(standing([1.0, 1.0], every=3, epochs=8))  # epoch 8 was not evaluated


def test_best_score():
    assert BestScore(0.5).ends(standing([0.5]))
    assert not BestScore(0.5).ends(standing([0.4, 0.6]))
    assert BestScore(0.9).ends(standing([0.8, 0.9], maximize=True))
    assert not BestScore(0.9).ends(standing([0.8], maximize=True))
    assert not BestScore(0.9).ends(standing([NAN]))
    assert not BestScore(0.9).ends(Standing())


def test_conditions_within_an_epoch():
    assert [MaxTime(2.0).ends(seconds, 0.0) for seconds in (1.9, 2.0)] == [False, True]
    assert [MaxScore(3.0).ends(0.0, loss) for loss in (3.0, 3.1, NAN, math.inf)] == [False, True, True, True]
    assert [InvalidScore().ends(0.0, loss) for loss in (1e300, NAN, math.inf, -math.inf)] == [False, True, True, True]


@given(st.lists(st.floats(), max_size=12), st.booleans())
def test_the_best_is_the_first_of_the_best_numbers(scores, maximize):
    best = standing(scores, maximize).best
    numbers = [score for score in scores if not math.isnan(score)]
    if not numbers:
        assert best is None
    else:
        wanted = max(numbers) if maximize else min(numbers)
        assert (best.score, best.after) == (wanted, scores.index(wanted) + 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaxEpochs(0),
        lambda: MaxTime(0),
        lambda: MaxTime(NAN),
        lambda: ScoreImprovement(0),
        lambda: ScoreImprovement(True),
        lambda: ScoreImprovement(2, min_improvement=-1.0),
    ],
)
def test_conditions_that_cannot_work(make):
    with pytest.raises(ConfigurationError, match=r"must be above 0|not be negative"):
        make()


def test_conditions_are_values():
    for condition in (MaxEpochs(3), MaxTime(2.5), MaxScore(1.0), InvalidScore(), ScoreImprovement(2), BestScore(0.1)):
        assert pickle.loads(pickle.dumps(condition)) == condition
    assert repr(ScoreImprovement(2, 0.1)) == "ScoreImprovement(epochs=2, min_improvement=0.1)"
