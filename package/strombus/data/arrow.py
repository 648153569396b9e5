"""Columns of Arrow batches as arrays: numbers, nested lists of one shape, and Spark's ML vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.data.native import table_rows
from strombus.errors import DataError
from strombus.types import DataSet

__all__ = ["batch_rows", "column_array"]

_SPARSE, _DENSE = 0, 1
_VECTOR = ("type", "size", "indices", "values")
"""Fields in which Spark stores a vector."""


def batch_rows(features: int, labelled: bool, batches: Iterable[Any]) -> Iterator[DataSet]:
    """Yield the rows of each batch: its first `features` columns, and the one after them as labels."""
    for batch in batches:
        if batch.num_rows:
            columns = [column_array(batch.column(index), name) for index, name in enumerate(batch.schema.names)]
            yield table_rows(columns[:features], columns[features] if labelled else None)


def column_array(column: Any, name: str) -> NDArray[Any]:
    """Return a ``pyarrow.Array`` as an array with the rows as first axis.

    Raises
    ------
    DataError
        For missing values, rows of different shapes, and types that are no numbers; names the column.
    """
    if column.null_count:
        raise DataError(f"column {name} has {column.null_count} missing values; fill or drop them first")
    kind = str(column.type)
    if kind.startswith("struct") and tuple(field.name for field in column.type) == _VECTOR:
        return _vectors(column, name)
    if kind.startswith(("list", "large_list")):
        return _lists(column, name)
    array = np.asarray(column.to_numpy(zero_copy_only=False))
    if array.dtype.kind not in "biuf":
        raise DataError(f"column {name} must hold numbers, arrays of numbers or vectors, got {kind}")
    return array


def _lists(column: Any, name: str) -> NDArray[Any]:
    values = column_array(column.flatten(), name)
    lengths = set(column.value_lengths().to_pylist())
    if len(lengths) > 1:
        raise _ragged(name, lengths)
    return values.reshape(len(column), lengths.pop() if lengths else 0, *values.shape[1:])


def _vectors(column: Any, name: str) -> NDArray[Any]:
    kinds, sizes, indices, values = (column.field(field) for field in _VECTOR)
    if set(kinds.to_pylist()) <= {_DENSE}:
        return _lists(values, name)
    records = zip(kinds.to_pylist(), sizes.to_pylist(), indices.to_pylist(), values.to_pylist(), strict=True)
    return _stacked([_vector(*record) for record in records], name)


def _vector(kind: int, size: int | None, indices: Sequence[int] | None, values: Sequence[float]) -> NDArray[Any]:
    if kind == _DENSE:
        return np.asarray(values)
    vector = np.zeros(size or 0)
    vector[np.asarray(indices, int)] = values
    return vector


def _stacked(rows: list[NDArray[Any]], name: str) -> NDArray[Any]:
    if len({len(row) for row in rows}) > 1:
        raise _ragged(name, {len(row) for row in rows})
    return np.stack(rows)


def _ragged(name: str, lengths: set[int]) -> DataError:
    return DataError(f"all rows of column {name} need one shape, got lengths {sorted(lengths)[:4]}")
