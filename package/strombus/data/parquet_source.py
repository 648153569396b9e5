"""Tables in Parquet files, read by the workers where they lie, row group by row group."""

from __future__ import annotations

import threading
import warnings
from bisect import bisect, bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from strombus.data import store
from strombus.data.arrow import batch_columns, key_array
from strombus.data.columns import Name, TableColumns, ragged
from strombus.data.kept import CACHE_BYTES, Kept
from strombus.data.parquet_files import Footer, ParquetFiles, find_parquet, read_footer
from strombus.data.parquet_stream import GroupStream
from strombus.data.rows import Layout, concatenate
from strombus.data.source import BLOCK_BYTES, OpenedSource, Transform, split_rows
from strombus.data.stored import THREADS, StoredFile
from strombus.documents import counted
from strombus.errors import DataError, EmptyDataError, StrombusWarning
from strombus.types import Block, Columns, DataSet

__all__ = ["ParquetSource", "open_parquet"]

STEP_BYTES = 16 << 20
"""Bytes of the blocks of a large row group: smaller ones would have it decoded more often, larger ones need memory."""

PIECE_BYTES = 1 << 16
"""Bytes of a column that a stream reads ahead of what it decodes."""

MOST_BLOCKS = 1 << 21


class Run(NamedTuple):
    """Row groups `numbers` of file `file`, one after the other; the first of their rows is row `first` of the file."""

    file: int
    numbers: tuple[int, ...]
    first: int
    rows: int


def open_parquet(uris: Sequence[str], columns: TableColumns, transform: Transform | None = None) -> ParquetSource:
    """Open Parquet files, or directories of them, as one source.

    The driver reads the footers and one row; all else is read by the workers.

    Raises
    ------
    MissingDataError
        When nothing is there.
    EmptyDataError
        When no file has a row.
    DataError
        When a column is missing, holds no numbers, or is of another type than in the file before.
    """
    columns = replace(columns, engine="parquet")
    with ThreadPoolExecutor(THREADS) as pool:
        files = [file for found in pool.map(find_parquet, uris) for file in found]
        footers = list(pool.map(partial(read_footer, columns=columns), files))
    filled = [(file, footer) for file, footer in zip(files, footers, strict=True) if sum(footer.rows)]
    if not filled:
        raise EmptyDataError(f"none of the {len(files)} Parquet files at {', '.join(uris[:3])} has a row")
    _check_forms(filled)
    groups = [
        Run(index, (number,), first, rows)
        for index, (_, footer) in enumerate(filled)
        for number, (first, rows) in enumerate(zip(np.cumsum([0, *footer.rows]).tolist(), footer.rows, strict=False))
        if rows
    ]
    return ParquetSource([file for file, _ in filled], groups, columns, transform)


def _check_forms(filled: Sequence[tuple[StoredFile, Footer]]) -> None:
    (first, wanted), *others = filled
    for file, footer in others:
        for name, form in footer.forms.items():
            if form != wanted.forms[name]:
                raise DataError(
                    f"column {name} is {form} in {file.uri} and {wanted.forms[name]} in {first.uri}; write all files "
                    f"with one type"
                )


class ParquetSource(OpenedSource):
    """Rows of Parquet files; made by `strombus.data.table`.

    Parameters
    ----------
    files : sequence of StoredFile
    groups : sequence of Run
        All row groups that have rows, in order.
    columns : TableColumns
    transform : callable, optional

    Notes
    -----
    Neighbouring row groups of up to 4 MiB together are one part, so that small files cost no more than large ones. A
    reader keeps up to 64 MiB of what it has decoded last; what is larger in one row group is decoded as a stream, from
    the row group's start where rows are wanted out of their order.
    """

    kind = "DataSet"

    def __init__(
        self,
        files: Sequence[StoredFile],
        groups: Sequence[Run],
        columns: TableColumns,
        transform: Transform | None = None,
    ) -> None:
        self.table = columns
        self.files = ParquetFiles(files)
        self.transform = transform
        self.forms, self.columns = self._look(groups[0])
        self.parts = tuple(_grouped(groups, self.layout.row_bytes))
        self.part_rows = tuple(sum(run.rows for run in part) for part in self.parts)
        self._start_empty()
        self._check_sizes()

    def _start_empty(self) -> None:
        self._kept = Kept()
        self._lock = threading.Lock()
        self._stream = GroupStream()

    @property
    def stored(self) -> str:
        """How many files hold it."""
        return counted(len(self.files), "file")

    def _look(self, run: Run) -> tuple[dict[Name, Any], dict[str, Any]]:
        """Return what a row has in each column of the table, and what it is as an example."""
        with self.files.open(run.file, pre_buffer=False, buffer_size=PIECE_BYTES) as opened:
            batches = opened.iter_batches(1, list(run.numbers), list(self.table.numbers), use_threads=False)
            arrays = self._arrays(run, next(batches), 0)
        forms = {name: (array.dtype.name, array.shape[1:]) for name, array in arrays.items()}
        return forms, dict(Layout.of(self.table.rows(arrays, str)).columns)

    def _check_sizes(self) -> None:
        largest = max(range(len(self.parts)), key=self._part_bytes)
        size = self._part_bytes(largest)
        uri = self.files[self.parts[largest][0].file].uri
        if sum(self.part_rows) * self.layout.row_bytes // STEP_BYTES > MOST_BLOCKS:
            raise DataError(f"{uri} claims {self.part_rows[largest]:,} rows in one row group, which is not credible")
        if size > CACHE_BYTES:
            warnings.warn(
                f"a row group of {uri} has {size >> 20:,} MiB: where rows are shuffled, an epoch decodes it up to "
                f"{size // STEP_BYTES} times over; write row groups of a few MiB (row_group_size=...), or bring "
                f"the data to Zarr first (strombus data export)",
                StrombusWarning,
                stacklevel=5,
            )

    def _part_bytes(self, part: int) -> int:
        return self.part_rows[part] * self.layout.row_bytes

    def blocks(self) -> tuple[Block, ...]:
        """Return some small row groups each, one, or up to 16 MiB of a large one."""
        step = max(1, STEP_BYTES // self.layout.row_bytes)
        return tuple(block for part, rows in enumerate(self.part_rows) for block in split_rows(part, rows, step))

    def read(self, block: Block) -> Columns:
        """Return a block's rows; see `Source.read`."""
        if self._part_bytes(block.part) > CACHE_BYTES:
            return self._streamed(block)
        with self._lock:
            found = self._kept.get(block.part, partial(self._decoded, block.part))
        return {name: array[block.start : block.stop] for name, array in found.items()}

    @property
    def keyed(self) -> bool:
        """Whether there is a column of keys."""
        return self.table.key is not None

    def read_keys(self, start: int, stop: int) -> NDArray[Any]:
        """Return the keys of rows `start` to `stop`, counted over all parts."""
        ends = list(accumulate(self.part_rows))
        pieces = []
        for part in range(bisect(ends, start), bisect_left(ends, stop) + 1):
            with self._lock:
                keys = self._kept.get(("keys", part), partial(self._keys, part))
            first = ends[part] - self.part_rows[part]
            pieces.append(keys[max(start - first, 0) : stop - first])
        return np.concatenate(pieces)

    def release(self) -> None:
        """Drop what was kept."""
        with self._lock:
            self._kept.clear()
        self._stream.close()

    def _decoded(self, part: int) -> Columns:
        return concatenate(self.layout, [self._whole(run) for run in self.parts[part]])

    def _whole(self, run: Run) -> Columns:
        return self._rows(run, self._table(run, self.table.numbers), 0).columns()

    def _keys(self, part: int) -> NDArray[Any]:
        name, pieces = str(self.table.key), []
        for run in self.parts[part]:
            column = _joined(self._table(run, (name,)).column(name))
            pieces.append(key_array(column, name, self._at(run, 0)))
        return np.concatenate(pieces)

    def _table(self, run: Run, columns: Sequence[Name]) -> Any:
        """Return all rows of some columns."""
        with self._opened(run, pre_buffer=not self._is_local(run)) as opened:
            return opened.read_row_groups(list(run.numbers), list(columns), use_threads=False)

    def _streamed(self, block: Block) -> Columns:
        [run] = self.parts[block.part]
        table = self._stream.take(run, block.start, block.stop, self._batches)
        return self._rows(run, table, block.start).columns()

    def _batches(self, run: Run) -> Iterator[Any]:
        size = max(1, BLOCK_BYTES // self.layout.row_bytes)
        # From elsewhere, pieces of every column in turns would cost a request each.
        options = {"pre_buffer": False, "buffer_size": PIECE_BYTES} if self._is_local(run) else {"pre_buffer": True}
        with self._opened(run, **options) as opened:
            yield from opened.iter_batches(size, list(run.numbers), list(self.table.numbers), use_threads=False)

    def _is_local(self, run: Run) -> bool:
        return store.is_local(self.files[run.file].uri)

    @contextmanager
    def _opened(self, run: Run, **options: Any) -> Iterator[Any]:
        with self.files.open(run.file, **options) as opened:
            footer = opened.metadata
            there = max(run.numbers) < footer.num_row_groups
            if not there or sum(footer.row_group(number).num_rows for number in run.numbers) != run.rows:
                raise DataError(f"{self.files[run.file].uri} has changed since the data was opened; open it again")
            yield opened

    def _rows(self, run: Run, table: Any, start: int) -> DataSet:
        arrays = self._arrays(run, table, start)
        for name, array in arrays.items():
            if (array.dtype.name, array.shape[1:]) != self.forms[name]:
                where = self._at(run, start)(0)
                raise ragged(name, where, f"{array.dtype.name}{list(array.shape[1:])}", _text(self.forms[name]))
        return self.table.rows(arrays, self._at(run, start))

    def _arrays(self, run: Run, table: Any, start: int) -> dict[Name, NDArray[Any]]:
        arrays = {name: _joined(table.column(table.schema.names.index(name))) for name in self.table.numbers}
        return batch_columns(arrays, self.table, self._at(run, start))

    def _at(self, run: Run, start: int) -> Any:
        uri = self.files[run.file].uri
        return lambda row: f"row {run.first + start + row} of {uri}"


def _text(form: tuple[str, tuple[int, ...]]) -> str:
    return f"{form[0]}{list(form[1])}"


def _joined(column: Any) -> Any:
    """Return a chunked array in one piece."""
    from pyarrow import concat_arrays

    chunks = getattr(column, "chunks", None)
    if chunks is None:
        return column
    return chunks[0] if len(chunks) == 1 else concat_arrays(chunks)


def _grouped(runs: Sequence[Run], row_bytes: int) -> list[tuple[Run, ...]]:
    """Put neighbours together up to the size of a block, those of one file in one run."""
    found: list[tuple[Run, ...]] = []
    pending: list[Run] = []
    rows = 0
    for run in runs:
        if pending and (rows + run.rows) * row_bytes > BLOCK_BYTES:
            found.append(tuple(pending))
            pending, rows = [], 0
        rows += run.rows
        if pending and pending[-1].file == run.file:
            last = pending.pop()
            run = last._replace(numbers=last.numbers + run.numbers, rows=last.rows + run.rows)  # noqa: PLW2901
        pending.append(run)
    return [*found, tuple(pending)]
