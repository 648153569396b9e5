"""Any partition of the rows, merged in any order and written and read in between, gives what one pass gives."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import BaseEvaluation, Evaluation, evaluations


def classes(rng, rows):
    """Few distinct probabilities, so that there are ties; class 3 has no labels."""
    output = rng.integers(0, 5, (rows, 4)) / 4
    return rng.integers(0, 3, rows), output, rng.integers(0, 2, rows)


def yes_or_no(rng, rows):
    return rng.integers(0, 2, (rows, 3)), rng.integers(0, 6, (rows, 3)) / 5, rng.integers(0, 2, (rows, 3))


def one_output(rng, rows):
    return rng.integers(0, 2, rows), rng.integers(0, 8, rows) / 7, rng.integers(0, 2, rows)


def numbers(rng, rows):
    """Large values that vary little: sums of their squares keep no digit of the variance."""
    labels = 1e7 + rng.normal(size=(rows, 3)) * [1, 1e-2, 0]
    return labels, labels + rng.normal(size=(rows, 3)) * 0.1, rng.integers(0, 2, (rows, 3))


CASES = {
    "evaluation": ({"top_n": 2}, classes),
    "evaluation_binary": ({"roc_binary_steps": 4, "decision_threshold": [0.2, 0.5, 0.8]}, yes_or_no),
    "evaluation_calibration": ({"reliability_diag_num_bins": 4, "histogram_num_bins": 8}, classes),
    "regression_evaluation": ({}, numbers),
    "roc": ({}, one_output),
    "roc_binary": ({}, yes_or_no),
    "roc_multi_class": ({"threshold_steps": 7}, classes),
}


def test_every_type_has_a_case_and_its_own_file():
    assert set(CASES) == set(evaluations)
    for name in evaluations:
        kind = evaluations[name]
        assert (kind.name, kind.__module__.rpartition(".")[2]) == (name, name)


def flat(value):
    """Return all numbers of nested statistics in one order; where a mean has its origin may differ."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value) if not key.endswith(("_origin", "_mean"))]
    return [number for item in value for number in flat(item)] if isinstance(value, list) else [value]


def same(left, right):
    one, two = (np.array(flat(metric.statistics()), np.float64) for metric in (left, right))
    return one.shape == two.shape and np.allclose(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=40)
@given(
    pieces=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
    masked=st.sampled_from(["no", "yes", "weights"]),
    through=st.sampled_from(["json", "yaml", "pickle"]),
)
def test_merged_equals_one_pass(name, pieces, seed, masked, through):
    options, make = CASES[name]
    rng = np.random.default_rng(seed)
    labels, output, mask = make(rng, sum(pieces))
    masks = {"no": None, "yes": mask, "weights": mask * rng.uniform(0, 2, mask.shape)}
    mask = masks[masked]
    once = evaluations[name](**options)
    once.add(labels, output, mask)
    parts = []
    for rows in np.split(rng.permutation(sum(pieces)), np.cumsum(pieces)[:-1]):
        part = once.fresh()
        part.add(labels[rows], output[rows], None if mask is None else mask[rows])
        parts.append(travelled(part, through))
    while len(parts) > 1:  # a tree of any shape
        i = rng.integers(1, len(parts))
        left, right = parts[i - 1], parts.pop(i)
        before = copy.deepcopy(left), copy.deepcopy(right)
        parts[i - 1] = left.fresh().merge(left).merge(right)
        assert (left, right) == before
    assert same(parts[0], once)
    figures = [value_of(metric, figure) for metric in (parts[0], once) for figure in once.figures]
    half = len(figures) // 2
    assert figures[:half] == pytest.approx(figures[half:], rel=1e-9, abs=1e-9, nan_ok=True)


def travelled(metric, how):
    if how == "pickle":
        return pickle.loads(pickle.dumps(metric))
    back = getattr(BaseEvaluation, f"from_{how}")(getattr(metric, f"to_{how}")())
    assert back == metric
    return back


def value_of(metric, figure):
    try:
        return metric.value(figure)
    except DataError:
        return np.nan  # no row was left by the mask


@pytest.mark.parametrize("name", CASES)
def test_a_fresh_one_and_one_that_was_reset_are_empty(name):
    options, make = CASES[name]
    metric = evaluations[name](**options)
    empty = metric.to_dict()
    assert "no data" in repr(metric)
    with pytest.raises(DataError, match="has no data"):
        metric.stats()
    metric.add(*make(np.random.default_rng(0), 20)[:2])
    assert "no data" not in repr(metric)
    assert metric != metric.fresh()
    kept = copy.deepcopy(metric)
    assert metric.merge(metric.fresh()) == kept
    assert metric.fresh().merge(metric) == kept
    metric.reset()
    assert metric.to_dict() == empty == metric.fresh().to_dict()


@pytest.mark.parametrize("name", CASES)
def test_a_figure_is_found_by_either_name(name):
    options, make = CASES[name]
    metric = evaluations[name](**options)
    metric.add(*make(np.random.default_rng(0), 20)[:2])
    for known, method in metric.figures.items():
        if name in ("evaluation_binary", "regression_evaluation", "roc_binary", "roc_multi_class"):
            assert metric.value(known, 1) == pytest.approx(getattr(metric, method)(1), nan_ok=True)
        expected = getattr(metric, method)()
        assert [metric.value(alias) for alias in (known, known.lower(), method)] == pytest.approx(
            [expected] * 3, nan_ok=True
        )
    with pytest.raises(ConfigurationError, match="has no figure 'speed'; known: "):
        metric.value("speed")


def test_what_counts_differently_is_not_merged():
    for one, two, message in [
        (Evaluation(top_n=2), Evaluation(), "top_n = 2 and 1 cannot be merged"),
        (evaluations["roc"](), evaluations["roc"](5), "threshold_steps = 0 and 5"),
        (evaluations["roc"](), evaluations["roc_binary"](), "ROC cannot be merged with ROCBinary"),
        (evaluations["evaluation_calibration"](5), evaluations["evaluation_calibration"](), "bins = 5 and 10"),
    ]:
        with pytest.raises(DataError, match=message):
            one.merge(two)
    three, four = Evaluation(), Evaluation()
    three.add([0], np.eye(3)[:1])
    four.add([0], np.eye(4)[:1])
    with pytest.raises(DataError, match="of 3 classes was given an output of 4"):
        three.merge(four)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", ConfigurationError, "is not JSON"),
        ("[]", ConfigurationError, "mapping of type, settings and statistics"),
        ('{"type": "accuracy"}', ConfigurationError, "no evaluation is called 'accuracy'; known: evaluation, "),
        ('{"type": "roc"}', ConfigurationError, "of type 'roc', not 'evaluation'"),
        (
            '{"type": "evaluation", "settings": {"topN": 2}}',
            ConfigurationError,
            "no setting 'topN'; known: num_classes",
        ),
        (
            '{"type": "evaluation", "settings": {"top_n": 0}}',
            ConfigurationError,
            "top_n must be an integer of at least 1",
        ),
        ('{"type": "evaluation", "statistics": {"classes": 2}}', DataError, "pairs is missing"),
        (
            '{"type": "evaluation", "statistics": {"classes": 2, "pairs": [[0, 5, 1]], "top_n_correct": 0}}',
            DataError,
            "do not fit 2 classes",
        ),
        (
            '{"type": "evaluation", "statistics": {"classes": 2, "pairs": [[0, 1, -1]], "top_n_correct": 0}}',
            DataError,
            "integers of at least 0",
        ),
        (
            '{"type": "evaluation", "statistics": {"classes": 2, "pairs": [[0, 1, -0.5]], "top_n_correct": 0}}',
            DataError,
            "none below 0",
        ),
        ('{"type": "evaluation", "statistics": {"classes": 2, "pairs": [[0]]}}', DataError, r"of shape \(n, 3\)"),
    ],
)
def test_what_cannot_be_read_says_why(text, error, message):
    with pytest.raises(error, match=message):
        Evaluation.from_json(text)


def test_yaml_that_would_run_code_is_refused():
    with pytest.raises(ConfigurationError, match="not YAML"):
        BaseEvaluation.from_yaml("!!python/object/apply:os.getcwd []")
