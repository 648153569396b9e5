"""Evaluation agrees with scikit-learn, merged in any way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from strombus.errors import DataError
from strombus.evaluation import Evaluation


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 6), st.lists(st.integers(0, 25), min_size=1, max_size=5), st.integers(0, 999))
def test_agrees_with_scikit_learn_and_merges_to_one_pass(classes, pieces, seed):
    rng = np.random.default_rng(seed)
    total = Evaluation(classes)
    batches = []
    for rows in pieces:
        # Few distinct values, so that ties and absent classes occur.
        output = rng.integers(0, 3, (rows, classes)).astype(np.float32)
        labels = rng.integers(0, classes, rows)
        batches.append((labels, output))
        part = total.fresh()
        part.add(labels, output)
        total.merge(part)
    labels, output = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    once = Evaluation(classes)
    once.add(labels, output)
    assert np.array_equal(total.confusion_matrix, once.confusion_matrix)
    if not len(labels):
        return
    predicted = output.argmax(axis=1)
    assert np.array_equal(total.confusion_matrix, metrics.confusion_matrix(labels, predicted, labels=range(classes)))
    assert total.accuracy() == pytest.approx(metrics.accuracy_score(labels, predicted), abs=1e-12)
    expected = metrics.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    got = (total.precision(average="macro"), total.recall(average="macro"), total.f1(average="macro"))
    assert got == pytest.approx(expected[:3], abs=1e-12)


def test_one_hot_and_class_numbers_give_the_same():
    output = np.random.default_rng(0).random((20, 4))
    numbers = np.arange(20) % 4
    one, two = Evaluation(), Evaluation()
    one.add(numbers, output)
    two.add(np.eye(4)[numbers], output)
    assert np.array_equal(one.confusion_matrix, two.confusion_matrix)


def test_masked_time_steps_do_not_count():
    rng = np.random.default_rng(1)
    output, labels = rng.random((5, 3, 7)), rng.integers(0, 3, (5, 7))
    mask = rng.integers(0, 2, (5, 7))
    evaluation = Evaluation()
    evaluation.add(labels, output, mask)
    expected = Evaluation()
    keep = mask.reshape(-1) == 1
    expected.add(labels.reshape(-1)[keep], np.moveaxis(output, 1, -1).reshape(-1, 3)[keep])
    assert np.array_equal(evaluation.confusion_matrix, expected.confusion_matrix)


def test_two_classes_report_the_positive_one():
    evaluation = Evaluation()
    evaluation.add(np.array([1, 1, 0, 0]), np.array([[0.9], [0.2], [0.7], [0.1]]))
    assert (evaluation.precision(), evaluation.recall()) == (0.5, 0.5)
    assert "class 1" in evaluation.stats()


@pytest.mark.parametrize(
    ("labels", "output", "message"),
    [
        (np.zeros(3, int), np.zeros((4, 2)), "do not fit"),
        (np.full(2, 5), np.zeros((2, 2)), r"0\.\.1"),
        (np.zeros(2, int), np.full((2, 2), np.nan), "NaN in 2 of 2 rows"),
    ],
)
def test_bad_batches_are_refused(labels, output, message):
    with pytest.raises(DataError, match=message):
        Evaluation().add(labels, output)


def test_no_data_is_an_error_and_merging_it_is_not():
    evaluation = Evaluation(3)
    evaluation.merge(Evaluation(3))
    with pytest.raises(DataError, match="no data"):
        evaluation.accuracy()
