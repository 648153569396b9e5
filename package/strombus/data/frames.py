"""Columns of pandas DataFrames as arrays: a whole frame, or a partition of a Dask DataFrame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.data.columns import At, Name, TableColumns, missing, refuse_type, stack_cells
from strombus.data.rows import KeyedRows
from strombus.errors import DataError
from strombus.types import DataSet

__all__ = ["check_frame", "frame_rows", "keyed_frame_rows"]


def check_frame(frame: Any, columns: TableColumns) -> None:
    """Raise DataError for columns that are not there, or whose types say that they hold no numbers."""
    columns.check(frame.columns, "the DataFrame")
    for name in columns.numbers:
        refuse_type(name, str(frame[name].dtype), columns.engine)


def frame_rows(frame: Any, columns: TableColumns, piece: str = "") -> DataSet:
    """Make rows of a pandas DataFrame; `piece` names it in errors where it is one of several."""
    return columns.rows(_arrays(frame, columns, piece), _at(piece))


def keyed_frame_rows(frame: Any, columns: TableColumns, piece: str = "") -> KeyedRows:
    """Make rows and keys of a pandas DataFrame."""
    assert columns.key is not None
    arrays = _arrays(frame, columns, piece)
    return columns.keyed({**arrays, columns.key: _known(frame[columns.key], columns.key, _at(piece))}, _at(piece))


def _at(piece: str) -> At:
    return lambda row: f"row {row}{piece}"


def _arrays(frame: Any, columns: TableColumns, piece: str) -> dict[Name, NDArray[Any]]:
    check_frame(frame, columns)
    return {name: _array(frame[name], name, columns.engine, _at(piece)) for name in columns.numbers}


def _array(series: Any, name: Name, engine: str, at: At) -> NDArray[Any]:
    floats = isinstance(series.dtype, np.dtype) and series.dtype.kind == "f"
    array = series.to_numpy() if floats else _known(series, name, at)
    if array.dtype == object:
        return stack_cells(array, name, at, engine)
    if array.dtype.kind == "f":
        _refuse_gaps(array, name, at)
    return array


def _known(series: Any, name: Name, at: At) -> NDArray[Any]:
    """Return the values where none is missing."""
    gaps = series.isna().to_numpy()
    if gaps.any():
        raise missing(name, int(gaps.sum()), at(int(gaps.argmax())))
    return np.asarray(series.to_numpy())


def _refuse_gaps(array: NDArray[Any], name: Name, at: At) -> None:
    """Refuse whole numbers with gaps: pandas keeps an integer column that lacks some as floats with NaN."""
    gaps = np.isnan(array)
    if gaps.any() and (array[~gaps] % 1 == 0).all() and not gaps.all():
        raise DataError(
            f"column {name} holds whole numbers and {int(gaps.sum())} NaN, the first at {at(int(gaps.argmax()))}: "
            f"values of an integer column that are missing; fill or drop them first"
        )
