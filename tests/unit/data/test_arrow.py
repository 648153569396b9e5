"""Columns of Arrow batches as arrays, against what they were made of; slices too, whose buffers start elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install strombus[tables])")

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from strombus.data.arrow import batch_rows, column_array
from strombus.data.columns import TableColumns
from strombus.errors import DataError

VECTOR = pa.struct(
    [("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float64()))]
)


def place(row):
    return f"row {row}"


def vector(values):
    """Return a row of Spark's vectors: sparse where there is a zero."""
    values = np.asarray(values, float)
    if values.all():
        return {"type": 1, "size": None, "indices": None, "values": values.tolist()}
    indices = np.flatnonzero(values)
    return {"type": 0, "size": len(values), "indices": indices.tolist(), "values": values[indices].tolist()}


@given(
    rows=st.sampled_from([np.float32, np.float64, np.int16, np.int64, np.uint8]).flatmap(
        lambda dtype: arrays(
            dtype,
            array_shapes(min_dims=1, max_dims=4, max_side=4),
            elements={"allow_nan": False} if dtype in (np.float32, np.float64) else None,
        )
    ),
    data=st.data(),
)
def test_numbers_and_nested_lists(rows, data):
    kind = pa.from_numpy_dtype(rows.dtype)
    for size in rows.shape[:0:-1]:
        kind = pa.list_(kind, data.draw(st.sampled_from([-1, size])))
    start = data.draw(st.integers(0, len(rows)))
    found = column_array(pa.array(rows.tolist(), kind).slice(start), "x", place)
    assert found.dtype == rows.dtype
    if start < len(rows):
        np.testing.assert_array_equal(found, rows[start:])


def test_vectors_dense_sparse_and_mixed():
    rows = np.array([[1.0, 2.0, 3.0], [0.0, 5.0, 0.0], [7.0, 8.0, 9.0]])
    column = pa.array([vector(row) for row in rows], VECTOR)
    np.testing.assert_array_equal(column_array(column, "x", place), rows)
    np.testing.assert_array_equal(column_array(column.slice(1), "x", place), rows[1:])
    np.testing.assert_array_equal(column_array(column.slice(2), "x", place), rows[2:])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.0, None]), "x has a missing value at row 1;"),
        (pa.array([[1.0, 2.0], [None, None]]), "x has 2 missing values, the first at row 1;"),
        (pa.array([[1.0], [1.0, 2.0]]), "x need one shape: row 1 has 2 values, where the first has 1;"),
        (pa.array([vector([1.0]), vector([1.0, 0.0])], VECTOR), "x need one shape: row 1 has 2 values"),
        (pa.array(["a"]), r"x holds texts \(string\)"),
        (pa.array(["a"]).dictionary_encode(), r"x holds categories \(dictionary.*get_dummies"),
        (pa.array([1], pa.timestamp("s")), r"x holds dates or times .*seconds"),
    ],
)
def test_what_is_no_array_is_refused_by_name(column, message):
    with pytest.raises(DataError, match=message):
        column_array(column, "x", place)


def test_batches_become_rows_and_empty_ones_none():
    batch = pa.record_batch({"a": [1.0, 2.0], "b": [3.0, 4.0], "y": [0, 1], "w": [1, 3], "k": ["p", "q"]})
    columns = TableColumns.of(["a", "b"], "y", "w", "k")
    [rows] = batch_rows(columns, False, [batch.slice(0, 0), batch])
    np.testing.assert_array_equal(rows.features, [[1.0, 3.0], [2.0, 4.0]])
    np.testing.assert_array_equal(rows.labels, [0, 1])
    np.testing.assert_array_equal(rows.labels_mask, [[1.0], [3.0]])
    keyed = list(batch_rows(columns, True, [batch.slice(0, 1), batch.slice(1)]))
    assert [one.keys.tolist() for one in keyed] == [["p"], ["q"]]
    [unlabelled] = batch_rows(TableColumns.of("a"), False, [batch.select(["a"])])
    assert unlabelled.labels is None
    assert unlabelled.features.shape == (2, 1)
