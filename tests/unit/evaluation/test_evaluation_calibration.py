"""Calibration agrees with scikit-learn's curve and NumPy's histograms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import EvaluationCalibration


def filled(labels, output, mask=None, /, **options):
    metric = EvaluationCalibration(**options)
    metric.add(labels, output, mask)
    return metric


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 80), st.integers(2, 4), st.integers(1, 12), st.integers(0, 9999))
def test_agrees_with_scikit_learn(rows, classes, bins, seed):
    rng = np.random.default_rng(seed)
    output, labels = rng.dirichlet(np.full(classes, 0.5), rows), rng.integers(0, classes, rows)
    found = filled(labels, output, reliability_diag_num_bins=bins, histogram_num_bins=bins)
    one_hot = np.eye(classes)[labels]
    for label in range(classes):
        share, mean = calibration_curve(one_hot[:, label], output[:, label], n_bins=bins)
        diagram = found.get_reliability_diagram(label)
        assert diagram.fraction_positives == pytest.approx(share, abs=1e-9)
        assert diagram.mean_predicted_value == pytest.approx(mean, abs=1e-9)
        error = np.sum(diagram.counts * np.abs(share - mean)) / rows
        assert found.expected_calibration_error(label) == pytest.approx(error, abs=1e-9)
        own = labels == label
        for histogram, values in (
            (found.get_residual_plot(label), 1 - output[own, label]),
            (found.get_probability_histogram(label), output[own, label]),
        ):
            assert histogram.counts.tolist() == np.histogram(values, histogram.edges)[0].tolist()
    whole = found.get_residual_plot_all_classes()
    assert whole.counts.tolist() == np.histogram(np.abs(one_hot - output), whole.edges)[0].tolist()
    assert found.prediction_counts_each_class.tolist() == np.bincount(output.argmax(1), minlength=classes).tolist()


def test_bounds_belong_to_the_bin_above_and_one_to_the_last():
    found = filled(np.array([0, 1, 1]), np.array([[0.7, 0.3], [0.71, 0.29], [0, 1]]), reliability_diag_num_bins=100)
    total = np.array(found.statistics()["bin_total"])
    assert np.flatnonzero(total[:, 1]).tolist() == [29, 30, 99]
    assert np.flatnonzero(total[:, 0]).tolist() == [0, 70, 71]


def test_empty_bins_can_be_kept():
    labels, output = np.array([0, 1]), np.array([[0.95, 0.05], [0.05, 0.95]])
    assert len(filled(labels, output).get_reliability_diagram(0).counts) == 2
    kept = filled(labels, output, exclude_empty_bins=False).get_reliability_diagram(0)
    assert (len(kept.counts), np.isnan(kept.fraction_positives).sum()) == (10, 8)


def test_masks_of_rows_and_of_outputs_and_a_single_column():
    rng = np.random.default_rng(0)
    labels, output = rng.integers(0, 2, (30, 3)).astype(float), rng.random((30, 3))
    mask = rng.integers(0, 2, (30, 3))
    mask[:3] = 0
    found = filled(labels, output, mask)
    for label in range(3):
        keep = mask[:, label] == 1
        expected = filled(labels[keep, label], output[keep, label])  # two classes of one column
        np.testing.assert_allclose(
            found.get_reliability_diagram(label).mean_predicted_value,
            expected.get_reliability_diagram(1).mean_predicted_value,
        )
        assert found.label_counts_each_class[label] == expected.label_counts_each_class[1]
    assert found.prediction_counts_each_class.sum() == mask.any(axis=1).sum()
    rows = rng.integers(0, 2, 30)
    assert filled(labels, output, rows) == filled(labels[rows == 1], output[rows == 1])


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="needs probabilities from 0 to 1, got 2"):
        filled(np.array([0]), np.array([[2.0, -1.0]]))
    with pytest.raises(DataError, match="of 3 classes was given 2"):
        filled(np.array([0]), np.array([[0.5, 0.5]]), labels=["a", "b", "c"])
    with pytest.raises(ConfigurationError, match="histogram_num_bins must be an integer of at least 1"):
        EvaluationCalibration(histogram_num_bins=0)
    with pytest.raises(ConfigurationError, match="has no figure 'auc'; known: ECE"):
        filled(np.array([0]), np.array([[0.5, 0.5]])).value("auc")
