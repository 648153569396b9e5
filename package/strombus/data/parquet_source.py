"""Tables in Parquet files, read by the workers where they lie, row group by row group."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from strombus.data import store
from strombus.data.arrow import batch_columns, key_array
from strombus.data.columns import Name, TableColumns, ragged
from strombus.data.kept import Kept
from strombus.data.parquet_files import Footer, find_parquet, open_parquet_file, read_footer
from strombus.data.parquet_stream import GroupStream
from strombus.data.rows import Layout, concatenate
from strombus.data.source import BLOCK_BYTES, Source, Transform, split_rows
from strombus.data.stored import THREADS, StoredFile
from strombus.errors import DataError, EmptyDataError, StrombusWarning
from strombus.types import Block, Columns, DataSet

__all__ = ["ParquetSource", "open_parquet"]

CACHE_BYTES = 64 << 20
"""Bytes of row groups that a reader keeps; a larger one is decoded as a stream."""

STEP_BYTES = 16 << 20
"""Bytes of the blocks of a large row group: smaller ones would have it decoded more often, larger ones need memory."""

MOST_BLOCKS = 1 << 21


class RowGroup(NamedTuple):
    """Row group `number` of file `file`, whose first row is row `first` of the file."""

    file: int
    number: int
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
        RowGroup(index, number, first, rows)
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


class ParquetSource(Source):
    """Rows of Parquet files; made by `strombus.data.table`.

    Parameters
    ----------
    files : sequence of StoredFile
    groups : sequence of RowGroup
        All that have rows, in order.
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
        groups: Sequence[RowGroup],
        columns: TableColumns,
        transform: Transform | None = None,
    ) -> None:
        self.table = columns
        self.files = tuple(files)
        self.transform = transform
        self._forms, self.columns = self._look(groups[0])
        self.groups = tuple(_grouped(groups, self.layout.row_bytes))
        self.part_rows = tuple(sum(group.rows for group in part) for part in self.groups)
        self._kept = Kept(CACHE_BYTES)
        self._stream = GroupStream()
        self._check_sizes()

    def _look(self, group: RowGroup) -> tuple[dict[Name, Any], dict[str, Any]]:
        """Return what a row has in each column of the table, and what it is as an example."""
        with open_parquet_file(self.files[group.file]) as opened:
            batches = opened.iter_batches(1, [group.number], list(self.table.numbers), use_threads=False)
            arrays = self._arrays(group, next(batches), 0)
        forms = {name: (array.dtype.name, array.shape[1:]) for name, array in arrays.items()}
        return forms, dict(Layout.of(self.table.rows(arrays, str)).columns)

    def _check_sizes(self) -> None:
        largest = max(range(len(self.groups)), key=self._part_bytes)
        size = self._part_bytes(largest)
        uri = self.files[self.groups[largest][0].file].uri
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
        found = self._kept.get(block.part, self._decoded)
        return {name: array[block.start : block.stop] for name, array in found.items()}

    @property
    def keyed(self) -> bool:
        """Whether there is a column of keys."""
        return self.table.key is not None

    def read_keys(self, start: int, stop: int) -> NDArray[Any]:
        """Return the keys of rows `start` to `stop`, counted over all parts."""
        pieces, first = [], 0
        for part in self.groups:
            for group in part:
                low, high = max(start - first, 0), min(stop - first, group.rows)
                if low < high:
                    pieces.append(self._kept.get(group, self._keys)["keys"][low:high])
                first += group.rows
        return np.concatenate(pieces)

    def release(self) -> None:
        """Drop what was kept."""
        self._kept.clear()
        self._stream.close()

    def _decoded(self, part: int) -> Columns:
        return concatenate(self.layout, [self._whole(group) for group in self.groups[part]])

    def _whole(self, group: RowGroup) -> Columns:
        remote = not store.is_local(self.files[group.file].uri)
        with open_parquet_file(self.files[group.file], pre_buffer=remote) as opened:
            self._check_unchanged(opened, group)
            found = opened.read_row_group(group.number, list(self.table.numbers), use_threads=False)
        return self._rows(group, found, 0).columns()

    def _keys(self, group: RowGroup) -> Columns:
        name = str(self.table.key)
        with open_parquet_file(self.files[group.file]) as opened:
            self._check_unchanged(opened, group)
            found = opened.read_row_group(group.number, [name], use_threads=False)
        return {"keys": key_array(_joined(found.column(name)), name, self._at(group, 0))}

    def _streamed(self, block: Block) -> Columns:
        [group] = self.groups[block.part]
        return self._rows(
            group, self._stream.take(group, block.start, block.stop, self._batches), block.start
        ).columns()

    def _batches(self, group: RowGroup) -> Iterator[Any]:
        size = max(1, BLOCK_BYTES // self.layout.row_bytes)
        with open_parquet_file(self.files[group.file], buffer_size=1 << 20) as opened:
            self._check_unchanged(opened, group)
            yield from opened.iter_batches(size, [group.number], list(self.table.numbers), use_threads=False)

    def _check_unchanged(self, opened: Any, group: RowGroup) -> None:
        metadata = opened.metadata
        there = group.number < metadata.num_row_groups and metadata.row_group(group.number).num_rows == group.rows
        if not there:
            raise DataError(f"{self.files[group.file].uri} has changed since the data was opened; open it again")

    def _rows(self, group: RowGroup, table: Any, start: int) -> DataSet:
        arrays = self._arrays(group, table, start)
        for name, array in arrays.items():
            if (array.dtype.name, array.shape[1:]) != self._forms[name]:
                where = self._at(group, start)(0)
                raise ragged(name, where, f"{array.dtype.name}{list(array.shape[1:])}", _text(self._forms[name]))
        return self.table.rows(arrays, self._at(group, start))

    def _arrays(self, group: RowGroup, table: Any, start: int) -> dict[Name, NDArray[Any]]:
        arrays = {name: _joined(table.column(table.schema.names.index(name))) for name in self.table.numbers}
        return batch_columns(arrays, self.table, self._at(group, start))

    def _at(self, group: RowGroup, start: int) -> Any:
        uri = self.files[group.file].uri
        return lambda row: f"row {group.first + start + row} of {uri}"


def _text(form: tuple[str, tuple[int, ...]]) -> str:
    return f"{form[0]}{list(form[1])}"


def _joined(column: Any) -> Any:
    """Return a chunked array in one piece."""
    from pyarrow import concat_arrays

    chunks = getattr(column, "chunks", None)
    if chunks is None:
        return column
    return chunks[0] if len(chunks) == 1 else concat_arrays(chunks)


def _grouped(groups: Sequence[RowGroup], row_bytes: int) -> list[tuple[RowGroup, ...]]:
    """Put neighbours together up to the size of a block."""
    found: list[tuple[RowGroup, ...]] = []
    pending: list[RowGroup] = []
    rows = 0
    for group in groups:
        if pending and (rows + group.rows) * row_bytes > BLOCK_BYTES:
            found.append(tuple(pending))
            pending, rows = [], 0
        pending.append(group)
        rows += group.rows
    return [*found, tuple(pending)]
