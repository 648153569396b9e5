"""RegressionEvaluation agrees with scikit-learn and NumPy, also where plain sums would lose all digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import RegressionEvaluation


def close(value):
    return pytest.approx(value, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=80)
@given(
    rows=st.integers(2, 60),
    columns=st.integers(1, 3),
    offset=st.sampled_from([0.0, -5.0, 1e6]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 9999),
)
def test_agrees_with_scikit_learn(rows, columns, offset, dtype, seed):
    rng = np.random.default_rng(seed)
    labels = (offset + rng.normal(size=(rows, columns))).astype(dtype)
    output = (labels + rng.normal(size=(rows, columns))).astype(dtype)
    mask = rng.random((rows, columns)) < 0.8
    mask[:2] = True
    found = RegressionEvaluation()
    found.add(labels, output, mask)
    for i in range(columns):
        y, p = labels[mask[:, i], i].astype(np.float64), output[mask[:, i], i].astype(np.float64)
        assert found.mean_squared_error(i) == close(metrics.mean_squared_error(y, p))
        assert found.mean_absolute_error(i) == close(metrics.mean_absolute_error(y, p))
        assert found.root_mean_squared_error(i) == close(metrics.root_mean_squared_error(y, p))
        assert found.example_count(i) == len(y)
        if np.ptp(y) and np.ptp(p):
            assert found.r_squared(i) == close(metrics.r2_score(y, p))
            assert found.relative_squared_error(i) == close(1 - metrics.r2_score(y, p))
            assert found.pearson_correlation(i) == close(np.corrcoef(y, p)[0, 1])
    assert found.average_mean_squared_error() == close(np.mean([found.mean_squared_error(i) for i in range(columns)]))


def test_many_small_merged_pieces_lose_nothing():
    rng = np.random.default_rng(0)
    labels = 1e8 + rng.normal(size=20_000)
    output = labels + rng.normal(size=20_000)
    total = RegressionEvaluation()
    for rows in np.split(rng.permutation(20_000), 2_000):
        part = total.fresh()
        part.add(labels[rows], output[rows])
        total.merge(part)
    y, p = labels - 1e8, output - 1e8  # exact
    assert total.r_squared(0) == pytest.approx(metrics.r2_score(y, p), abs=1e-12)
    assert total.pearson_correlation(0) == pytest.approx(np.corrcoef(y, p)[0, 1], abs=1e-12)


def test_constant_columns():
    labels = np.full((6, 2), 0.1)
    output = np.column_stack([labels[:, 0], labels[:, 0] + 1])
    found = RegressionEvaluation()
    found.add(labels, output)
    assert [found.r_squared(0), found.r_squared(1)] == [1.0, 0.0]
    assert [found.relative_squared_error(0), found.relative_squared_error(1)] == [0.0, math.inf]
    assert np.isnan([found.pearson_correlation(0), found.pearson_correlation(), found.pearson_correlation(1)]).all()


def test_a_column_that_is_masked_out_and_one_with_a_single_value():
    found = RegressionEvaluation(column_names=["a", "b", "c"])
    labels = np.array([[1.0, 2.0, 3.0], [2.0, np.nan, 4.0]])
    found.add(labels, np.zeros((2, 3)), np.array([[0, 1, 1], [0, 0, 1]]))
    assert np.isnan([found.mean_squared_error(0), found.r_squared(0), found.r_squared(1)]).all()
    assert found.mean_squared_error() == pytest.approx((4 + 12.5) / 2)
    lines = found.stats().splitlines()
    assert lines[0].split() == ["column", "MSE", "MAE", "RMSE", "RSE", "PC", "R2"]
    assert lines[3].split()[:2] == ["c", "1.25000e+01"]


def test_plain_columns_time_steps_and_masks_of_steps():
    rng = np.random.default_rng(0)
    labels, output, steps = rng.normal(size=(5, 2, 4)), rng.normal(size=(5, 2, 4)), rng.integers(0, 2, (5, 4))
    found = RegressionEvaluation()
    found.add(labels, output, steps)
    keep = steps.reshape(-1) == 1
    rows = [np.moveaxis(a, 1, -1).reshape(-1, 2)[keep] for a in (labels, output)]
    assert found.mean_squared_error(1) == close(metrics.mean_squared_error(rows[0][:, 1], rows[1][:, 1]))
    last = RegressionEvaluation(axis=-1)
    last.add(np.moveaxis(labels, 1, -1), np.moveaxis(output, 1, -1), steps)
    assert last.statistics() == found.statistics()
    for shape in ((20,), (20, 1)):
        flat = RegressionEvaluation()
        flat.add(labels[:, 0].reshape(20), output[:, 0].reshape(shape))
        assert flat.mean_squared_error(0) == close(metrics.mean_squared_error(labels[:, 0], output[:, 0]))


@pytest.mark.parametrize(
    ("options", "labels", "output", "message"),
    [
        ({}, np.zeros((3, 2)), np.zeros((3, 1)), "need one value for each output"),
        ({"columns": 3}, np.zeros((3, 2)), np.zeros((3, 2)), "of 3 columns was given 2"),
        ({}, np.zeros((3, 2)), np.full((3, 2), np.nan), "output holds NaN"),
        ({}, np.full((3, 2), np.inf), np.zeros((3, 2)), "finite labels and outputs"),
        ({"axis": 4}, np.zeros((3, 2)), np.zeros((3, 2)), "has no axis 4"),
    ],
)
def test_bad_batches_are_refused(options, labels, output, message):
    with pytest.raises(DataError, match=message):
        RegressionEvaluation(**options).add(labels, output)


def test_bad_options_are_refused():
    with pytest.raises(ConfigurationError, match="column_names needs one name for each of 2 outputs, got 1"):
        RegressionEvaluation(2, column_names=["a"])
