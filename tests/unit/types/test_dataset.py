"""Weights of examples are the labels mask, of any shape that a loss takes."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

import strombus as sb
from strombus.errors import DataError

WEIGHTS = np.array([0.5, 2.0, 0.0])
STEPS = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("mask", "weights", "expected"),
    [
        (None, WEIGHTS, WEIGHTS[:, None]),
        (None, WEIGHTS[:, None], WEIGHTS[:, None]),
        (None, [1, 2, 3], [[1], [2], [3]]),
        (STEPS, WEIGHTS, STEPS * WEIGHTS[:, None]),
        (STEPS[:, 0], WEIGHTS, WEIGHTS[:, None]),
        (STEPS, STEPS * 0.5, STEPS * 0.5),
        (STEPS[..., None] * np.ones(2), WEIGHTS, STEPS[..., None] * WEIGHTS[:, None, None] * np.ones(2)),
        (STEPS, None, STEPS),
    ],
)
def test_weights_are_the_labels_mask_or_multiply_it(mask, weights, expected):
    rows = sb.DataSet(np.ones((3, 2)), [0, 1, 1], labels_mask=mask, weights=weights)
    np.testing.assert_array_equal(rows.labels_mask, expected)
    again = pickle.loads(pickle.dumps(dataclasses.replace(rows[1:], labels=[1, 0])))
    np.testing.assert_array_equal(again.labels_mask, np.asarray(expected)[1:])


def test_a_graphs_weights_are_of_every_output():
    rows = sb.MultiDataSet(
        [np.ones((3, 2))], [[0, 1, 1], np.ones((3, 3, 4))], labels_masks=[None, STEPS], weights=WEIGHTS
    )
    np.testing.assert_array_equal(rows.labels_masks[0], WEIGHTS[:, None])
    np.testing.assert_array_equal(rows.labels_masks[1], STEPS * WEIGHTS[:, None])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sb.DataSet(np.ones((3, 2)), [0, 1, 1], weights=[1, -1, 0]), "at least 0"),
        (lambda: sb.DataSet(np.ones((3, 2)), [0, 1, 1], weights=[1, np.nan, 0]), "finite"),
        (lambda: sb.DataSet(np.ones((3, 2)), [0, 1, 1], weights=[1, 2]), "same number of examples"),
        (lambda: sb.DataSet(np.ones((3, 2)), [0, 1, 1], None, STEPS, weights=[2]), "same number of examples"),
        (lambda: sb.DataSet(np.ones((3, 2)), [0, 1, 1], None, STEPS, weights=np.ones((3, 2))), r"\(3, 2\) do not fit"),
        (lambda: sb.MultiDataSet([np.ones((3, 2))], weights=WEIGHTS), "weights are of labels"),
        (lambda: sb.data.as_rows((np.ones((3, 2)), [0, 1, 1], WEIGHTS)), r"DataSet\(features, labels, weights=...\)"),
    ],
)
def test_what_are_no_weights_is_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()
