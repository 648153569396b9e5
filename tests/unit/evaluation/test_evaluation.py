"""Evaluation agrees with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import Evaluation

pytestmark = pytest.mark.filterwarnings("ignore:A single label was found")


def evaluated(labels, output, mask=None, /, **options):
    evaluation = Evaluation(**options)
    evaluation.add(labels, output, mask)
    return evaluation


def close(value):
    return pytest.approx(value, abs=1e-9)


@settings(deadline=None, max_examples=80)
@given(
    classes=st.integers(2, 6),
    rows=st.integers(1, 60),
    seen=st.integers(1, 6),
    levels=st.integers(1, 4),
    seed=st.integers(0, 9999),
)
def test_agrees_with_scikit_learn(classes, rows, seen, levels, seed):
    """`seen` below `classes` leaves classes without labels, down to a single one; few levels make ties."""
    rng = np.random.default_rng(seed)
    output = rng.integers(0, levels + 1, (rows, classes)).astype(np.float32)
    labels = rng.integers(0, min(seen, classes), rows)
    mask = rng.random(rows) < 0.8
    mask[0] = True
    found = evaluated(labels, output, mask, num_classes=classes, binary_positive_class=None)
    labels, output = labels[mask], output[mask]
    predicted = output.argmax(axis=1)
    assert np.array_equal(found.confusion_matrix, metrics.confusion_matrix(labels, predicted, labels=range(classes)))
    assert found.accuracy() == close(metrics.accuracy_score(labels, predicted))
    for average in ("macro", "micro"):
        for beta in (0.5, 1.0, 2.0):
            expected = metrics.precision_recall_fscore_support(
                labels, predicted, beta=beta, average=average, zero_division=0
            )
            got = (found.precision(average=average), found.recall(average=average), found.f_beta(beta, average=average))
            assert got == close(expected[:3])
    per_class = metrics.precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)
    for label in range(classes):
        row = [found.precision(label), found.recall(label), found.f1(label), found.class_count(label)]
        assert row == close([column[label] for column in per_class])
        one, two = labels == label, predicted == label
        assert found.matthews_correlation(label) == close(metrics.matthews_corrcoef(one, two))
        assert found.g_measure(label) == close(np.sqrt(row[0] * row[1]))
        (tn, fp), (fn, tp) = metrics.confusion_matrix(one, two, labels=[False, True])
        counts = [found.true_negatives(), found.false_positives(), found.false_negatives(), found.true_positives()]
        assert [count[label] for count in counts] == [tn, fp, fn, tp]
        rates = fp / max(fp + tn, 1), fn / max(fn + tp, 1)
        assert (found.false_positive_rate(label), found.false_negative_rate(label)) == close(rates)
        assert found.false_alarm_rate(label) == close(sum(rates) / 2)


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 6), st.integers(1, 4), st.integers(0, 999))
def test_top_n_agrees_with_scikit_learn_where_nothing_is_tied(classes, top, seed):
    rng = np.random.default_rng(seed)
    output, labels = rng.random((50, classes)), rng.integers(0, classes, 50)
    expected = metrics.top_k_accuracy_score(labels, output, k=min(top, classes - 1), labels=range(classes))
    found = evaluated(labels, output, top_n=min(top, classes - 1))
    assert found.top_n_accuracy() == close(expected)


def test_a_tied_class_is_among_the_top_if_fewer_than_n_are_larger():
    output = np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2]])
    assert evaluated([1, 2], output, top_n=2).top_n_accuracy() == 0.5
    assert evaluated([1, 0], np.array([0.3, 0.9]), top_n=2).top_n_accuracy() == 1.0


def test_one_hot_class_numbers_and_any_axis_give_the_same():
    rng = np.random.default_rng(0)
    output, numbers = rng.random((20, 4, 5)), rng.integers(0, 4, (20, 5))
    mask = rng.integers(0, 2, (20, 5))
    wanted = evaluated(numbers, output, mask)
    one_hot = np.moveaxis(np.eye(4)[numbers], -1, 1)
    assert evaluated(one_hot, output, mask).confusion_matrix.tolist() == wanted.confusion_matrix.tolist()
    last = np.moveaxis(output, 1, -1)
    assert evaluated(numbers, last, mask, axis=-1).confusion_matrix.tolist() == wanted.confusion_matrix.tolist()
    whole = np.array([1, 0] * 10)
    by_example = evaluated(numbers, output, np.repeat(whole[:, None], 5, axis=1))
    for mask in (whole, whole[:, None]):
        assert evaluated(numbers, output, mask) == by_example


def test_masked_time_steps_may_hold_nan():
    rng = np.random.default_rng(1)
    output, labels = rng.random((5, 3, 7)), rng.integers(0, 3, (5, 7))
    mask = rng.integers(0, 2, (5, 7))
    output[np.repeat(mask[:, None], 3, axis=1) == 0] = np.nan
    keep = mask.reshape(-1) == 1
    expected = evaluated(labels.reshape(-1)[keep], np.moveaxis(output, 1, -1).reshape(-1, 3)[keep])
    assert evaluated(labels, output, mask) == expected


def test_two_classes_report_the_positive_one():
    labels, output = np.array([1, 1, 0, 0, 0]), np.array([[0.9], [0.2], [0.7], [0.1], [0.2]])
    found = evaluated(labels, output)
    assert (found.precision(), found.recall()) == (0.5, 0.5)
    assert "(class 1)" in found.stats()
    zero = evaluated(labels, output, binary_positive_class=0, labels=["no", "yes"])
    assert zero.precision() == found.precision(0) == pytest.approx(2 / 3)
    assert "(class no)" in zero.stats()
    both = evaluated(labels, output, binary_positive_class=None)
    assert both.precision() == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert "(macro average)" in both.stats()


def test_thresholds_and_costs_decide():
    output = np.array([[0.6, 0.4], [0.8, 0.2]])
    assert evaluated([1, 1], output, binary_decision_threshold=0.3).confusion_matrix.tolist() == [[0, 0], [1, 1]]
    assert evaluated([1, 1], output[:, 1], binary_decision_threshold=0.3).true_positives().tolist() == [0, 1]
    assert evaluated([1, 1], output, cost_array=[1, 5]).true_positives().tolist() == [0, 2]
    assert evaluated([1, 1], output[:, 1:], cost_array=[1, 2]).true_positives().tolist() == [0, 1]
    assert "costs      1, 5" in evaluated([1, 1], output, cost_array=[1, 5]).stats()


def test_many_classes_stay_small():
    output = np.zeros((2, 50_000), np.float32)
    output[[0, 1], [7, 3]] = 1
    found = evaluated(np.array([7, 49_999]), output)
    assert found.accuracy() == 0.5
    assert found.statistics()["pairs"] == [[7, 7, 1], [49_999, 3, 1]]
    assert "50000 classes not shown" in found.stats()


def test_stats_name_what_is_undefined_and_can_keep_quiet():
    found = evaluated([0, 0, 1], np.eye(4)[[0, 0, 2]], labels=dict(enumerate("abcd")))
    text = found.stats()
    assert "never predicted: b (1 class counts 0 in the average precision)" in text
    assert "without labels: c" in text
    assert "never" not in found.stats(suppress_warnings=True)
    assert "confusion" not in found.stats(include_confusion=False)
    assert found.confusion_to_string().splitlines()[1].split() == ["a", "2", "0", "0", "0"]
    assert found.undefined_classes("f1") == [1, 2, 3]


@pytest.mark.parametrize(
    ("labels", "output", "mask", "message"),
    [
        (np.zeros(3, int), np.zeros((4, 2)), None, "do not fit"),
        (np.full(2, 5), np.zeros((2, 2)), None, r"integers in 0\.\.1, got 5"),
        (np.full(2, -1), np.zeros((2, 2)), None, r"0\.\.1, got -1"),
        (np.full((2, 1), 0.5), np.zeros((2, 1)), None, "got 0.5"),
        (np.full(2, np.nan), np.zeros((2, 3)), None, "labels hold NaN in 2 of 2 rows"),
        (np.zeros(2, int), np.full((2, 2), np.nan), None, "output holds NaN in 2 of 2 rows"),
        (np.zeros(2, int), np.zeros((2, 2)), np.ones(3), "does not fit rows"),
        (np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 3)), "is for EvaluationBinary"),
    ],
)
def test_bad_batches_are_refused(labels, output, mask, message):
    with pytest.raises(DataError, match=message):
        Evaluation().add(labels, output, mask)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes must be an integer of at least 2, got 1"),
        ({"num_classes": 3, "labels": ["a"]}, "one name for each of 3 outputs, got 1"),
        ({"labels": {0: "a", 2: "b"}}, "there is none for 1"),
        ({"top_n": 0}, "top_n must be"),
        ({"cost_array": [1, -1]}, "at least 0 for each class"),
        ({"cost_array": [1, 1], "binary_decision_threshold": 0.3}, "give one of them"),
        ({"binary_decision_threshold": "high"}, "must be a number"),
        ({"undefined": "nan"}, "'zero', 'exclude'"),
        ({"binary_positive_class": 2}, "binary_positive_class must be one of 0, 1, None"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Evaluation(**options)


def test_a_threshold_or_costs_that_do_not_fit_the_classes_are_refused():
    with pytest.raises(DataError, match="for two classes, the output has 3"):
        evaluated([0], np.zeros((1, 3)), binary_decision_threshold=0.3)
    with pytest.raises(DataError, match="has 2 weights, the output 3 classes"):
        evaluated([0], np.zeros((1, 3)), cost_array=[1, 2])
    found = evaluated([0], np.zeros((1, 3)))
    with pytest.raises(ConfigurationError, match="label must be a number from 0 to 2, got 3"):
        found.recall(3)
    with pytest.raises(ConfigurationError, match="average must be one of"):
        found.recall(average="weighted")
