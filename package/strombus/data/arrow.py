"""Columns of Arrow batches as arrays: numbers, lists of one shape, nested too, and Spark's ML vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.data.columns import At, Name, TableColumns, check_keys, missing, no_numbers, ragged
from strombus.data.rows import KeyedRows
from strombus.types import DataSet

__all__ = ["batch_columns", "batch_rows", "column_array", "key_array"]

_SPARSE, _DENSE = 0, 1
_VECTOR = ("type", "size", "indices", "values")
"""Fields in which Spark stores a vector."""


def batch_rows(columns: TableColumns, keyed: bool, batches: Iterable[Any]) -> Iterator[DataSet | KeyedRows]:
    """Yield the rows of each batch, with their keys where `keyed`."""
    make = columns.keyed if keyed else columns.rows
    first = 0
    for batch in batches:
        if batch.num_rows:
            start = first

            def at(row: int, start: int = start) -> str:
                return f"row {start + row} of a partition"

            arrays = {name: batch.column(batch.schema.names.index(name)) for name in columns.names}
            yield make(batch_columns(arrays, columns, at, keyed), at)
            first += batch.num_rows


def batch_columns(
    arrays: dict[Name, Any], columns: TableColumns, at: At, keyed: bool = False
) -> dict[Name, NDArray[Any]]:
    """Return Arrow's arrays as arrays; the keys where `keyed`."""
    found = {name: column_array(arrays[name], name, at, columns.engine) for name in columns.numbers}
    if keyed and columns.key is not None:
        found[columns.key] = key_array(arrays[columns.key], columns.key, at)
    return found


def key_array(column: Any, name: Name, at: At) -> NDArray[Any]:
    """Return a ``pyarrow.Array`` of keys; DataError for missing ones, and for what is neither numbers nor strings."""
    _refuse_gaps(column, name, at)
    return check_keys(column.to_numpy(zero_copy_only=False), name)


def column_array(column: Any, name: Name, at: At, engine: str = "parquet") -> NDArray[Any]:
    """Return a ``pyarrow.Array`` as an array with the rows as first axis.

    Raises
    ------
    DataError
        For missing values, rows of different shapes, and types that are no numbers; names column and row.
    """
    _refuse_gaps(column, name, at)
    kind = str(column.type)
    if kind.startswith("struct") and tuple(field.name for field in column.type) == _VECTOR:
        return _vectors(column, name, at, engine)
    if kind.startswith(("list", "large_list", "fixed_size_list")):
        return _lists(column, name, at, engine)
    array = np.asarray(column.to_numpy(zero_copy_only=False)) if _is_plain(kind) else np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise no_numbers(name, kind, engine)
    return array


def _is_plain(kind: str) -> bool:
    return kind.startswith(("int", "uint", "half", "float", "double", "bool"))


def _refuse_gaps(column: Any, name: Name, at: At) -> None:
    if column.null_count:
        raise missing(name, column.null_count, at(column.is_null().index(True).as_py()))


def _lists(column: Any, name: Name, at: At, engine: str) -> NDArray[Any]:
    if str(column.type).startswith("fixed"):
        length = column.type.list_size
    else:
        lengths = np.asarray(column.value_lengths().to_numpy(zero_copy_only=False))
        length = int(lengths[0]) if len(lengths) else 0
        if (other := lengths != length).any():
            row = int(other.argmax())
            raise ragged(name, at(row), f"{lengths[row]} values", length)
    values = column_array(column.flatten(), name, lambda value: at(value // max(1, length)), engine)
    return values.reshape(len(column), length, *values.shape[1:])


def _vectors(column: Any, name: Name, at: At, engine: str) -> NDArray[Any]:
    kinds, sizes, indices, values = (column.field(field) for field in _VECTOR)
    if set(kinds.to_pylist()) <= {_DENSE}:
        return _lists(values, name, at, engine)
    records = zip(kinds.to_pylist(), sizes.to_pylist(), indices.to_pylist(), values.to_pylist(), strict=True)
    rows = [_vector(*record) for record in records]
    if other := [number for number, row in enumerate(rows) if len(row) != len(rows[0])]:
        raise ragged(name, at(other[0]), f"{len(rows[other[0]])} values", len(rows[0]))
    return np.stack(rows)


def _vector(kind: int, size: int | None, indices: Sequence[int] | None, values: Sequence[float]) -> NDArray[Any]:
    if kind == _DENSE:
        return np.asarray(values)
    vector = np.zeros(size or 0)
    vector[np.asarray(indices, int)] = values
    return vector
