"""EvaluationBinary agrees with scikit-learn, output by output."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import EvaluationBinary

pytestmark = pytest.mark.filterwarnings("ignore:A single label was found")


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 4), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 9999))
def test_agrees_with_scikit_learn(rows, outputs, share, seed):
    rng = np.random.default_rng(seed)
    labels, output = (rng.random((rows, outputs)) < share).astype(float), rng.random((rows, outputs)).round(1)
    mask = rng.random((rows, outputs)) < 0.8
    mask[0] = True
    found = EvaluationBinary()
    found.add(labels, output, mask)
    kept = [(labels[mask[:, i], i], output[mask[:, i], i] > 0.5) for i in range(outputs)]
    for i, (wanted, decided) in enumerate(kept):
        zero = {"zero_division": 0}
        expected = [
            metrics.accuracy_score(wanted, decided),
            metrics.precision_score(wanted, decided, **zero),
            metrics.recall_score(wanted, decided, **zero),
            metrics.f1_score(wanted, decided, **zero),
            metrics.fbeta_score(wanted, decided, beta=2, **zero),
            metrics.matthews_corrcoef(wanted, decided),
        ]
        got = [found.accuracy(i), found.precision(i), found.recall(i), found.f1(i), found.f_beta(2, i)]
        assert [*got, found.matthews_correlation(i)] == pytest.approx(expected, abs=1e-9)
        assert found.total_count(i) == len(wanted)
    means = [metrics.f1_score(wanted, decided, zero_division=0) for wanted, decided in kept]
    assert found.f1() == pytest.approx(np.mean(means), abs=1e-9)


def test_undefined_ratios_count_zero_or_are_left_out():
    labels, output = np.array([[1, 0], [1, 0]]), np.array([[0.9, 0.1], [0.9, 0.1]])
    zero, left_out = EvaluationBinary(), EvaluationBinary(undefined="exclude")
    for metric in (zero, left_out):
        metric.add(labels, output)
    assert (zero.precision(1), zero.precision()) == (0.0, 0.5)
    assert np.isnan(left_out.precision(1))
    assert left_out.precision() == 1.0


def test_thresholds_of_each_output_and_the_attached_roc():
    rng = np.random.default_rng(0)
    labels, output, mask = rng.integers(0, 2, (50, 2)), rng.random((50, 2)), rng.integers(0, 2, (50, 2))
    found = EvaluationBinary(labels=["a", "b"], decision_threshold=[0.2, 0.8], roc_binary_steps=0)
    found.add(labels, output, mask)
    for i, threshold in enumerate((0.2, 0.8)):
        keep = mask[:, i] == 1
        assert found.accuracy(i) == pytest.approx(np.mean((output[keep, i] > threshold) == labels[keep, i]))
        assert found.roc_binary.calculate_auc(i) == pytest.approx(
            metrics.roc_auc_score(labels[keep, i], output[keep, i])
        )
    header, *rows = (line.split() for line in found.stats().splitlines())
    assert (header[-1], [row[0] for row in rows]) == ("AUC", ["a", "b"])
    assert rows[0][5] == str(mask[:, 0].sum())


def test_masks_of_examples_and_steps_and_a_batch_without_any():
    rng = np.random.default_rng(0)
    labels, output = rng.integers(0, 2, (6, 2, 4)), rng.random((6, 2, 4))
    steps = rng.integers(0, 2, (6, 4))
    found, expected = EvaluationBinary(), EvaluationBinary()
    found.add(labels, output, steps)
    expected.add(labels, output, np.repeat(steps[:, None], 2, axis=1))
    assert found == expected
    whole = EvaluationBinary()
    whole.add(labels, output, np.zeros(6))
    assert (whole.num_labels(), whole.total_count(0), whole.accuracy(0)) == (2, 0, 0.0)


@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        ({}, [[0.5, 1]], "needs labels of 0 and 1 for each output, got 0.5"),
        ({"size": 3}, [[0, 1]], "of 3 outputs was given 2"),
        ({"decision_threshold": [0.5]}, [[0, 1]], "of 1 outputs was given 2"),
        ({}, [[np.nan, 1]], "labels hold NaN"),
    ],
)
def test_bad_batches_are_refused(options, labels, message):
    with pytest.raises(DataError, match=message):
        EvaluationBinary(**options).add(np.array(labels), np.array([[0.5, 0.5]]))


def test_bad_options_are_refused():
    with pytest.raises(ConfigurationError, match="a number, or one for each output"):
        EvaluationBinary(3, decision_threshold=[0.1, 0.2])
    with pytest.raises(ConfigurationError, match="size must be an integer of at least 1"):
        EvaluationBinary(0)
