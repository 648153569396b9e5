"""Results of many workers as one Zarr array or group of arrays, whole or not there at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from strombus.data import store
from strombus.data.rows import Column
from strombus.errors import DataError, EmptyDataError, ExecutorError
from strombus.types import Columns

__all__ = [
    "Assembly",
    "Piece",
    "PieceWriter",
    "assemble",
    "begin",
    "check_free",
    "end",
    "open_result",
    "plan_assembly",
    "publish",
]

PIECE_BYTES = 16 << 20
CHUNK_BYTES = 1 << 20
STRING = "string"
MARKER = "marker"


def begin(job: str) -> None:
    """Make the directory of a job, with the marker that says it goes on."""
    store.write_text(store.join(job, MARKER), "")


def end(job: str) -> None:
    """Remove all of a job, the marker first: a task that still writes sees that, and removes what it wrote."""
    store.remove(store.join(job, MARKER))
    with suppress(OSError):  # such a task has made a new file meanwhile; it is the last one to remove the directory
        store.remove(job)


def _check_wanted(job: str) -> None:
    if not store.exists(store.join(job, MARKER)):
        with suppress(OSError):
            store.remove(job)
        raise ExecutorError(f"the job that wrote to {job} has ended: this task, or this attempt at it, came too late")


@dataclass(frozen=True)
class Piece:
    """Rows that one attempt at one task has written: a group of arrays under a name of its own."""

    name: str
    rows: int
    columns: dict[str, Column]


class PieceWriter:
    """Write results as they come, in pieces of a few megabytes, each under a random name.

    A task that runs twice writes twice, and the pieces of the attempt whose result is taken are the ones that count.

    Parameters
    ----------
    uri : str
        The directory of the job's pieces.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._pending: list[Columns] = []
        self._bytes = 0
        self._pieces: list[Piece] = []

    def add(self, columns: Columns) -> None:
        """Take some rows of every column."""
        self._pending.append(columns)
        self._bytes += sum(array.nbytes for array in columns.values())
        if self._bytes >= PIECE_BYTES:
            self._flush()

    def finish(self) -> tuple[Piece, ...]:
        """Write what is left; return the pieces in order."""
        if self._pending:
            self._flush()
        return tuple(self._pieces)

    def _flush(self) -> None:
        columns = {name: np.concatenate([some[name] for some in self._pending]) for name in self._pending[0]}
        self._pending, self._bytes = [], 0
        rows = len(next(iter(columns.values())))
        if not rows:
            return
        piece = Piece(f"piece-{secrets.token_hex(8)}", rows, {name: _column(array) for name, array in columns.items()})
        for name, array in columns.items():
            uri = store.join(self._uri, piece.name, name)
            _create(uri, piece.columns[name], rows, max(1, CHUNK_BYTES // _row_bytes(array)), rows)[:] = array
        _check_wanted(self._uri)
        self._pieces.append(piece)


def _column(array: Any) -> Column:
    return Column(STRING if array.dtype.kind in "UT" else array.dtype.name, array.shape[1:])


def _row_bytes(array: Any) -> int:
    return max(1, int(array.nbytes) // max(1, len(array)))


def _create(uri: str, column: Column, rows: int, chunk_rows: int, shard_rows: int) -> Any:
    chunk_rows = max(1, min(chunk_rows, rows))
    shard_rows = -(-min(shard_rows, rows) // chunk_rows) * chunk_rows
    kind: Any = str if column.dtype == STRING else column.dtype
    return store.create_empty(uri, (rows, *column.shape), kind, chunk_rows, shard_rows)


@dataclass(frozen=True)
class Assembly:
    """How the pieces of all tasks, in order, become the result.

    Parameters
    ----------
    uri : str
        The job's directory, which holds the pieces.
    pieces : tuple of Piece
    starts : tuple of int
        The first row of each piece in the result.
    columns : mapping of str to Column
    shard_rows : int
        Rows that one task brings together: whole shards, so that no two tasks write one file.
    """

    uri: str
    pieces: tuple[Piece, ...]
    starts: tuple[int, ...]
    columns: dict[str, Column]
    shard_rows: int

    @property
    def rows(self) -> int:
        """Rows of the result."""
        return self.starts[-1] + self.pieces[-1].rows

    @property
    def result(self) -> str:
        """Where the result grows."""
        return store.join(self.uri, "result")

    def place(self, name: str) -> str:
        """Return where a column lies: the result is the array itself where there is only one."""
        return self.result if len(self.columns) == 1 else store.join(self.result, name)

    def spans(self) -> list[tuple[int, int]]:
        """Return the rows of each task."""
        return [(start, min(self.rows, start + self.shard_rows)) for start in range(0, self.rows, self.shard_rows)]


def plan_assembly(uri: str, pieces: Sequence[Piece]) -> Assembly:
    """Lay out a result and create its arrays.

    Raises
    ------
    DataError
        When there are no rows, or the pieces differ in columns, dtypes or shapes.
    """
    if not pieces:
        raise EmptyDataError("the data holds no examples")
    columns = pieces[0].columns
    for piece in pieces:
        if {name: column._replace(dtype="") for name, column in piece.columns.items()} != {
            name: column._replace(dtype="") for name, column in columns.items()
        }:
            raise DataError(
                f"the results of all examples must have one shape to make a Zarr array, got {columns} and "
                f"{piece.columns}; leave out `to` to have them one by one"
            )
    joined = {name: _joined([piece.columns[name] for piece in pieces], name) for name in columns}
    row_bytes = max(1, sum(8 if column.dtype == STRING else column.row_bytes for column in joined.values()))
    chunk_rows = max(1, CHUNK_BYTES // row_bytes)
    shard_rows = max(1, PIECE_BYTES // (row_bytes * chunk_rows)) * chunk_rows
    starts = tuple(int(start) for start in np.cumsum([0, *(piece.rows for piece in pieces)])[:-1])
    assembly = Assembly(uri, tuple(pieces), starts, joined, shard_rows)
    if len(joined) > 1:
        zarr.create_group(assembly.result)
    for name, column in joined.items():
        _create(assembly.place(name), column, assembly.rows, chunk_rows, shard_rows)
    return assembly


def _joined(columns: Sequence[Column], name: str) -> Column:
    kinds = {column.dtype for column in columns}
    if len(kinds) > 1 and STRING in kinds:
        raise DataError(f"{name} must be all strings or all numbers, got {', '.join(sorted(kinds))}")
    dtype = kinds.pop() if len(kinds) == 1 else np.result_type(*kinds).name
    return Column(dtype, columns[0].shape)


def assemble(assembly: Assembly, span: tuple[int, int]) -> None:
    """Write rows `span` of the result from the pieces; a task, whose second attempt writes the same."""
    start, stop = span
    for name in assembly.columns:
        found = []
        for first, piece in zip(assembly.starts, assembly.pieces, strict=True):
            low, high = max(start, first), min(stop, first + piece.rows)
            if low < high:
                uri = store.join(assembly.uri, piece.name, name)
                found.append(_read(uri, low - first, high - first))
        array = zarr.open_array(assembly.place(name), mode="r+")
        array[start:stop] = np.concatenate(found)
    _check_wanted(assembly.uri)


def _read(uri: str, start: int, stop: int) -> Any:
    try:
        return zarr.open_array(uri, mode="r")[start:stop]
    except Exception as error:
        raise DataError(f"rows {start} to {stop} of {uri} cannot be read: {type(error).__name__}: {error}") from error


def publish(assembly: Assembly, uri: str) -> Any:
    """Move the finished result to `uri` in one step, and open it.

    Raises
    ------
    DataError
        When something is there.
    """
    check_free(uri)
    if store.is_local(uri):
        os.rename(assembly.result, uri)  # refuses a directory that has come there meanwhile
    else:
        store.move(assembly.result, uri)
    return open_result(uri)


def check_free(uri: str) -> None:
    """Raise DataError when something is at `uri` already."""
    if store.exists(uri):
        raise DataError(f"{uri} is there already; remove it, or take another path for the result")


def open_result(uri: str) -> Any:
    """Open a result for reading: a `zarr.Array`, or a `zarr.Group` of arrays."""
    return zarr.open(uri, mode="r")
