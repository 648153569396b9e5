"""ROC and precision-recall agree with scikit-learn, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import ROC, ROCBinary, ROCMultiClass


def filled(metric, labels, output, mask=None):
    metric.add(labels, output, mask)
    return metric


def close(value):
    return pytest.approx(value, abs=1e-9)


@settings(deadline=None, max_examples=80)
@given(
    rows=st.integers(2, 80),
    levels=st.sampled_from([1, 2, 5, 1000, None]),
    logits=st.booleans(),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 9999),
)
def test_agrees_with_scikit_learn(rows, levels, logits, share, seed):
    rng = np.random.default_rng(seed)
    score = rng.random(rows) if levels is None else rng.integers(0, levels + 1, rows) / levels
    score = 40 * score - 20 if logits else score
    labels = (rng.random(rows) < share).astype(int)
    labels[:2] = 0, 1
    mask = rng.random(rows) < 0.9
    mask[:2] = True
    found, thin = filled(ROC(remove_redundant=False), labels, score, mask), filled(ROC(), labels, score, mask)
    labels, score = labels[mask], score[mask]
    assert found.calculate_auc() == close(metrics.roc_auc_score(labels, score))
    precision, recall, thresholds = metrics.precision_recall_curve(labels, score)
    assert found.calculate_auprc() == close(metrics.auc(recall, precision))
    pr, roc = found.get_precision_recall_curve(), found.get_roc_curve()
    np.testing.assert_allclose(pr.precision, precision, atol=1e-12)
    np.testing.assert_allclose(pr.recall, recall, atol=1e-12)
    np.testing.assert_allclose(pr.thresholds[:-1], thresholds, atol=1e-12)
    for curve, drop in ((roc, False), (thin.get_roc_curve(), True)):
        fpr, tpr, thresholds = metrics.roc_curve(labels, score, drop_intermediate=drop)
        assert metrics.auc(curve.fpr, curve.tpr) == close(metrics.auc(fpr, tpr))
        if not drop:
            np.testing.assert_allclose([curve.fpr, curve.tpr, curve.thresholds], [fpr, tpr, thresholds], atol=1e-12)
    assert thin.get_roc_curve().calculate_auc() == close(found.calculate_auc())
    assert thin.get_precision_recall_curve().calculate_auprc() == close(found.calculate_auprc())
    assert len(thin.get_roc_curve().fpr) <= len(roc.fpr)
    assert (found.count_actual_positive(), found.example_count()) == (labels.sum(), len(labels))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 999))
def test_thresholds_give_the_area_of_scores_rounded_down_to_them(steps, seed):
    rng = np.random.default_rng(seed)
    labels, score = rng.integers(0, 2, 60), rng.random(60)
    labels[:2] = 0, 1
    found = filled(ROC(steps), labels, score)
    assert found.calculate_auc() == close(metrics.roc_auc_score(labels, np.floor(score * steps)))
    assert len(found.get_roc_curve().fpr) == steps + 1
    assert len(found.statistics()["steps"]) <= steps


def test_scores_that_repeat_take_no_more_room():
    found = ROC()
    rng = np.random.default_rng(0)
    for _ in range(200):
        found.add(rng.integers(0, 2, 500), rng.integers(0, 11, 500) / 10)
    assert len(found.statistics()["scores"]) == 11
    assert sum(len(keys) for keys, _ in found._tally._parts) < 20_000
    zeros = filled(ROC(), np.array([0, 1]), np.array([0.0, -0.0]))
    assert zeros.statistics()["scores"] == [0.0]


def test_one_class_alone_has_no_roc():
    only = filled(ROC(), np.ones(5, int), np.arange(5) / 5)
    assert np.isnan(only.calculate_auc())
    assert only.calculate_auprc() == 1.0
    none = filled(ROC(), np.zeros(5, int), np.arange(5) / 5)
    assert np.isnan([none.calculate_auc(), none.calculate_auprc()]).all()
    assert "nan" in none.stats()


def test_points_of_the_precision_recall_curve():
    labels, score = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.4, 0.5, 0.8, 0.9])
    curve = filled(ROC(remove_redundant=False), labels, score).get_precision_recall_curve()
    point = curve.point_at_threshold(0.45)
    counts = (point.true_positives, point.false_positives, point.true_negatives, point.false_negatives)
    assert (point.threshold, counts) == (0.5, (2, 1, 1, 1))
    assert curve.point_at_threshold(0.95).recall == 0
    assert curve.point_at_precision(1.0).recall == pytest.approx(2 / 3)
    assert curve.point_at_recall(1.0).threshold == 0.4
    with pytest.raises(ConfigurationError, match="recall must lie from 0 to 1, got 2"):
        curve.point_at_recall(2)


def test_two_columns_are_two_classes():
    rng = np.random.default_rng(0)
    score, labels = rng.random(30), rng.integers(0, 2, 30)
    two = np.column_stack([1 - score, score])
    assert filled(ROC(), np.eye(2)[labels], two) == filled(ROC(), labels, score)
    several = filled(ROCMultiClass(labels=["a", "b"]), labels, score)
    assert several.calculate_auc(0) == close(several.calculate_auc(1))
    assert several.num_classes() == 2


@settings(deadline=None, max_examples=30)
@given(st.integers(3, 6), st.integers(0, 999), st.sampled_from([3, 1000]))
def test_each_class_against_the_rest_as_scikit_learn(classes, seed, levels):
    rng = np.random.default_rng(seed)
    output = rng.integers(1, levels, (60, classes)).astype(float)
    output /= output.sum(axis=1, keepdims=True)
    labels = np.r_[np.arange(classes), rng.integers(0, classes, 60 - classes)]
    found = filled(ROCMultiClass(), labels, output)
    assert found.calculate_average_auc() == close(metrics.roc_auc_score(labels, output, multi_class="ovr"))
    expected = metrics.roc_auc_score(labels, output, multi_class="ovr", average=None)
    assert [found.calculate_auc(label) for label in range(classes)] == close(list(expected))
    without = filled(ROCMultiClass(), labels, np.column_stack([output, np.zeros(60)]))
    assert np.isnan(without.calculate_auc(classes))
    assert without.calculate_average_auc() == close(expected.mean())


def test_outputs_of_their_own_with_masks_of_their_own():
    rng = np.random.default_rng(3)
    labels, output, mask = rng.integers(0, 2, (40, 3)), rng.random((40, 3)), rng.integers(0, 2, (40, 3))
    mask[:, 2] = 0
    found = filled(ROCBinary(labels=["x", "y", "z"]), labels, output, mask)
    for column in range(2):
        keep = mask[:, column] == 1
        expected = metrics.roc_auc_score(labels[keep, column], output[keep, column])
        assert found.calculate_auc(column) == close(expected)
    assert np.isnan(found.calculate_auc(2))
    assert found.count_actual_positive(2) == found.count_actual_negative(2) == 0
    text = found.stats()
    assert [line.split()[0] for line in text.splitlines()] == ["output", "x", "y", "z", "average"]
    assert text.splitlines()[3].split()[1:3] == ["-", "-"]


@pytest.mark.parametrize(
    ("metric", "labels", "output", "message"),
    [
        (ROC(), [0], [[0.1, 0.2, 0.7]], "got 3 columns: ROCMultiClass takes classes"),
        (ROC(), [0], [np.nan], "NaN in 1 of 1 rows"),
        (ROC(), [0], [np.inf], "finite scores"),
        (ROC(10), [0], [1.5], "needs probabilities from 0 to 1, got 1.5"),
        (ROC(10), [0], [-3.0], "loss over logits"),
        (ROCBinary(), [[0, 2]], [[0.5, 0.5]], "labels of 0 and 1"),
        (ROCBinary(), [0, 1], [[0.5, 0.5], [1, 1]], "one value for each output"),
        (ROCMultiClass(labels=["a", "b"]), [0], [[0.1, 0.2, 0.7]], "of 2 outputs was given 3"),
    ],
)
def test_bad_batches_are_refused(metric, labels, output, message):
    with pytest.raises(DataError, match=message):
        metric.add(np.array(labels), np.array(output))


def test_bad_steps_are_refused():
    for steps in (-1, 0.5, True):
        with pytest.raises(ConfigurationError, match="threshold_steps must be an integer of at least 0"):
            ROC(steps)
