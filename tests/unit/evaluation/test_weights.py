"""A labels mask of any weights counts in each metric as scikit-learn's ``sample_weight`` does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

import strombus as sb
from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import evaluations

ROWS = 60


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def weights(rng):
    return rng.uniform(0, 3, ROWS) * (rng.random(ROWS) > 0.2)


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)])
def test_classes(rng, weights, shape, tmp_path):
    labels, output = rng.integers(0, 3, ROWS), rng.random((ROWS, 3)).round(1)
    found, areas = sb.Evaluation(top_n=2), sb.ROCMultiClass()
    for metric in (found, areas):
        metric.add(labels, output, weights.reshape(shape))
    options = {"sample_weight": weights}
    predicted = output.argmax(1)
    np.testing.assert_allclose(found.confusion_matrix, metrics.confusion_matrix(labels, predicted, **options))
    assert found.examples == pytest.approx(weights.sum())
    assert found.accuracy() == pytest.approx(metrics.accuracy_score(labels, predicted, **options))
    assert found.matthews_correlation(1) == pytest.approx(
        metrics.matthews_corrcoef(labels == 1, predicted == 1, **options)
    )
    for average in ("macro", "micro"):
        wanted = metrics.precision_recall_fscore_support(labels, predicted, average=average, **options)[:3]
        assert (found.precision(average=average), found.recall(average=average), found.f1(average=average)) == (
            pytest.approx(wanted)
        )
    larger = (output > output[np.arange(ROWS), labels][:, None]).sum(1)
    assert found.top_n_accuracy() == pytest.approx(np.average(larger < 2, weights=weights))
    for label in range(3):
        wanted_area = metrics.roc_auc_score(labels == label, output[:, label], **options)
        assert areas.calculate_auc(label) == pytest.approx(wanted_area)
    assert f"examples   {weights.sum():.4g}" in found.stats()
    assert f"{found.confusion_matrix.max():.4g}" in found.confusion_to_string()
    assert f"{found.confusion_matrix[0, 0]:.4g} (" in found.to_html(tmp_path / "page.html").read_text()


def test_one_output(rng, weights):
    labels, scores = rng.integers(0, 2, ROWS), rng.random(ROWS).round(1)
    exact, steps = sb.ROC(), sb.ROC(20)
    for roc in (exact, steps):
        roc.add(labels, scores, weights)
        assert roc.calculate_auc() == pytest.approx(metrics.roc_auc_score(labels, scores, sample_weight=weights))
        assert roc.count_actual_positive() == pytest.approx(weights[labels == 1].sum())
    precision, recall, _ = metrics.precision_recall_curve(labels, scores, sample_weight=weights)
    assert exact.calculate_auprc() == pytest.approx(metrics.auc(recall, precision))
    point = exact.get_precision_recall_curve().point_at_threshold(0.5)
    assert point.false_negatives == pytest.approx(weights[(labels == 1) & (scores < 0.5)].sum())


@pytest.mark.parametrize("each_value", [False, True])
def test_several_outputs(rng, weights, each_value):
    labels, output = rng.integers(0, 2, (ROWS, 3)), rng.random((ROWS, 3))
    mask = weights[:, None] * rng.integers(0, 2, (ROWS, 3)) if each_value else weights
    found, areas = sb.EvaluationBinary(), sb.ROCBinary()
    for metric in (found, areas):
        metric.add(labels, output, mask)
    for column in range(3):
        row = labels[:, column], output[:, column] > 0.5
        options = {"sample_weight": mask[:, column] if each_value else weights}
        assert found.accuracy(column) == pytest.approx(metrics.accuracy_score(*row, **options))
        assert found.f1(column) == pytest.approx(metrics.f1_score(*row, **options))
        area = metrics.roc_auc_score(row[0], output[:, column], **options)
        assert areas.calculate_auc(column) == pytest.approx(area)
        assert found.total_count(column) == pytest.approx(options["sample_weight"].sum())


def test_values(rng, weights):
    labels = 1e6 + rng.normal(size=(ROWS, 2))
    output = labels + rng.normal(size=(ROWS, 2))
    small = weights / weights.sum() / 3  # that sum to less than one row
    for one in (weights, small):
        found = sb.RegressionEvaluation()
        found.add(labels, output, one)
        for column in range(2):
            row = labels[:, column], output[:, column]
            options = {"sample_weight": one}
            assert found.mean_squared_error(column) == pytest.approx(metrics.mean_squared_error(*row, **options))
            assert found.mean_absolute_error(column) == pytest.approx(metrics.mean_absolute_error(*row, **options))
            assert found.r_squared(column) == pytest.approx(metrics.r2_score(*row, **options), rel=1e-8)
            spread = np.cov(*row, aweights=one)
            wanted = spread[0, 1] / np.sqrt(spread[0, 0] * spread[1, 1])
            assert found.pearson_correlation(column) == pytest.approx(wanted, rel=1e-8)


def test_calibration(rng, weights):
    labels, scores = rng.integers(0, 2, ROWS), rng.random(ROWS)
    found = sb.EvaluationCalibration(5, 5)
    found.add(labels, scores, weights)
    bins = np.minimum((scores * 5).astype(int), 4)
    diagram = found.get_reliability_diagram(1)
    total = np.bincount(bins, weights, 5)
    np.testing.assert_allclose(diagram.mean_predicted_value, np.bincount(bins, weights * scores, 5) / total)
    np.testing.assert_allclose(diagram.fraction_positives, np.bincount(bins, weights * labels, 5) / total)
    assert found.label_counts_each_class == pytest.approx([weights[labels == i].sum() for i in (0, 1)])
    assert found.get_probability_histogram_all_classes().counts.sum() == pytest.approx(2 * weights.sum())


@settings(max_examples=30, deadline=None)
@given(weights=arrays(np.int64, 12, elements=st.integers(0, 3)), seed=st.integers(0, 99))
def test_a_whole_weight_is_as_many_rows(weights, seed):
    """As scikit-learn asks of its estimators; so for each metric that takes such rows."""
    rng = np.random.default_rng(seed)
    labels, output = rng.integers(0, 2, (12, 3)), rng.integers(0, 5, (12, 3)) / 4
    for kind in (sb.EvaluationBinary, sb.ROCBinary, sb.EvaluationCalibration, sb.RegressionEvaluation):
        weighed, repeated = kind(), kind()
        weighed.add(labels, output, weights)
        repeated.add(np.repeat(labels, weights, axis=0), np.repeat(output, weights, axis=0))
        if not weights.any():
            continue
        for figure in kind.figures:
            assert weighed.value(figure) == pytest.approx(repeated.value(figure), nan_ok=True)


@pytest.mark.parametrize("name", sorted(set(evaluations)))
@pytest.mark.parametrize("wrong", [-1.0, np.inf, np.nan])
def test_what_is_no_weight_is_refused(name, wrong):
    labels = np.array([[0.0, 1.0], [1.0, 0.0]]) if name != "roc" else np.array([0, 1])
    with pytest.raises(DataError, match="finite numbers of at least 0"):
        evaluations[name]().add(labels, np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([1.0, wrong]))


def test_a_mask_of_ones_and_zeros_still_counts_rows(rng):
    evaluation = sb.Evaluation()
    evaluation.add(rng.integers(0, 3, 9), rng.random((9, 3)), np.array([1.0] * 5 + [0.0] * 4))
    assert evaluation.examples == 5
    assert evaluation.confusion_matrix.dtype == np.int64


def test_dl4js_text_and_torchmetrics_take_no_weights(rng):
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    from strombus.evaluation.torch_metrics import TorchMetric

    labels, output, weights = rng.integers(0, 3, 9), rng.random((9, 3)), rng.random(9)
    evaluation = sb.Evaluation()
    evaluation.add(labels, output, weights)
    with pytest.raises(ConfigurationError, match="counts, not the sums of weights"):
        evaluation.to_json(dl4j=True)
    theirs = TorchMetric(torchmetrics.classification.MulticlassAccuracy(3))
    with pytest.raises(DataError, match="MulticlassAccuracy takes no weights"):
        theirs.add(labels, output, weights)
