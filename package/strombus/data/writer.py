"""Objects of any size to whole parts of a dataset: in order, without loss, in the memory of about one part."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr

from strombus.data import store
from strombus.data.manifest import Manifest, Part
from strombus.data.rows import KeyedRows, Layout, Rows, as_rows, concatenate, is_mask
from strombus.data.shards import write_array
from strombus.errors import DataError, EmptyDataError
from strombus.types import Columns, DataSet, MultiDataSet

__all__ = [
    "ExportSettings",
    "PartWriter",
    "Written",
    "export_partition",
    "manifest_of",
    "remove_others",
    "write_parts",
]

CHUNK_BYTES = 1 << 20
PART_BYTES = 32 << 20


@dataclass(frozen=True)
class ExportSettings:
    """What every worker of an export has to know.

    Parameters
    ----------
    uri : str
        The dataset's root.
    export : str
        Unique name of this export; all its parts carry it.
    batch_size : int
        Chunks and parts hold a multiple of this number of rows, but for the last part of a partition.
    """

    uri: str
    export: str
    batch_size: int = 32


@dataclass(frozen=True)
class Written:
    """What one writer made: its parts, in order, and the layout they share (None for no rows)."""

    parts: tuple[Part, ...] = ()
    layout: Layout | None = None
    chunk_rows: int = 0


@dataclass
class _Sizes:
    """Rows of a chunk and of a part, decided by the first rows."""

    chunk: int
    part: int

    @classmethod
    def of(cls, layout: Layout, batch_size: int) -> _Sizes:
        # masks do not count: a writer whose first object has none must come to the same sizes as its peers
        row_bytes = max(column.row_bytes for name, column in layout.columns.items() if not is_mask(name))
        batches = max(1, -(-CHUNK_BYTES // (row_bytes * batch_size)))
        chunk = batches * batch_size
        return cls(chunk, max(1, PART_BYTES // (row_bytes * chunk)) * chunk)


@dataclass
class PartWriter:
    """Collect objects and write a part whenever enough rows are there.

    Parameters
    ----------
    uri : str
        The dataset's root.
    export : str
        Name of the export. Parts are called ``part-<number>-<export>-<random>``, so that a second attempt at
        the same work never overwrites the first.
    batch_size : int
    """

    uri: str
    export: str
    batch_size: int = 32
    _layout: Layout | None = None
    _sizes: _Sizes = field(default_factory=lambda: _Sizes(0, 0))
    _pending: list[Columns] = field(default_factory=list)
    _keys: list[Any] = field(default_factory=list)
    _rows: int = 0
    _parts: list[Part] = field(default_factory=list)
    _suffix: str = field(default_factory=lambda: secrets.token_hex(4))

    def add(self, item: Any, *, copy: bool = True) -> None:
        """Take one object of any number of rows.

        Parameters
        ----------
        item : DataSet, MultiDataSet, (features, labels) or KeyedRows
            All of them have keys, or none.
        copy : bool
            Whether its arrays may change before the part is written: a generator may fill the same ones again.

        Raises
        ------
        DataError
            When it does not agree with the objects before it, or holds what Zarr cannot (text, dates).
        """
        keys, rows = (item.keys, item.rows) if isinstance(item, KeyedRows) else (None, as_rows(item))
        if not rows.examples:
            return
        self._agree(rows)
        start = 0
        while start < rows.examples:
            taken = rows[start : start + self._sizes.part - self._rows]
            if keys is not None:
                self._keys.append(keys[start : start + taken.examples])
            columns = taken.columns()
            self._pending.append({name: array.copy() for name, array in columns.items()} if copy else columns)
            self._rows += taken.examples
            start += taken.examples
            if self._rows == self._sizes.part:
                self._flush()

    @property
    def waiting(self) -> int:
        """Rows that are kept for the next part; they may be views of what was added."""
        return self._rows

    def part_rows(self, layout: Layout) -> int:
        """Return the rows of a part of such objects."""
        return _Sizes.of(layout, self.batch_size).part

    def _agree(self, rows: Rows) -> None:
        for name, array in rows.columns().items():
            if array.dtype.kind not in "biufc":
                raise DataError(f"{name} must hold numbers, got dtype {array.dtype}; encode it first")
            if 0 in array.shape:
                raise DataError(f"{name} has no values: a row has the shape {array.shape[1:]}")
        layout = Layout.of(rows)
        if self._layout is None:
            self._layout, self._sizes = layout, _Sizes.of(layout, self.batch_size)
        else:
            self._layout = self._layout.merge(layout)

    def _flush(self) -> None:
        assert self._layout is not None
        names = {name for columns in self._pending for name in columns}
        here = Layout(self._layout.kind, {n: c for n, c in self._layout.columns.items() if n in names})
        name = f"part-{len(self._parts):05d}-{self.export}-{self._suffix}"
        columns = concatenate(here, self._pending)
        if self._keys:
            _write_keys(store.join(self.uri, name, "keys"), np.concatenate(self._keys), self._sizes.chunk)
        _write_part(store.join(self.uri, name), here, columns, self._sizes.chunk)
        self._parts.append(Part(name, self._rows, tuple(columns)))
        self._pending, self._keys, self._rows = [], [], 0

    def finish(self) -> Written:
        """Write what is left as a last, shorter part."""
        if self._rows:
            self._flush()
        return Written(tuple(self._parts), self._layout, self._sizes.chunk)


def _write_part(uri: str, layout: Layout, columns: Columns, chunk_rows: int) -> None:
    for name, array in columns.items():
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        # a narrow column takes several of the widest one's chunks into one of its own: chunks cost time, not bytes
        times = max(1, CHUNK_BYTES // (layout.columns[name].row_bytes * chunk_rows))
        write_array(store.join(uri, name), native, min(times * chunk_rows, len(native)))
    zarr.create_group(uri, attributes={"strombus_part": {"version": 1, "kind": layout.kind}})


def _write_keys(uri: str, keys: Any, chunk_rows: int) -> None:
    kind: Any = str if keys.dtype.kind == "U" else keys.dtype
    shard_rows = -(-len(keys) // chunk_rows) * chunk_rows
    store.create_empty(uri, keys.shape, kind, chunk_rows, shard_rows)[...] = keys


def write_parts(
    objects: Iterable[Any],
    uri: str,
    export: str,
    *,
    batch_size: int = 32,
    on_rows: Callable[[int], Any] | None = None,
) -> Written:
    """Write an iterable of objects as parts.

    Parameters
    ----------
    objects : iterable
        `DataSet`, `MultiDataSet`, (features, labels) or `KeyedRows`, of any number of rows each, 0 included.
    uri : str
        The dataset's root.
    export : str
        Name of the export, part of the parts' names.
    batch_size : int
        Chunks and parts hold a multiple of it; the last part takes the rest.
    on_rows : callable, optional
        Told the rows of each object, for a progress bar.
    """
    writer = PartWriter(store.normalise(uri), export, batch_size)
    for item in [objects] if isinstance(objects, DataSet | MultiDataSet) else objects:
        rows = item if isinstance(item, KeyedRows) else as_rows(item)
        writer.add(rows)
        if on_rows is not None:
            on_rows(rows.examples)
    return writer.finish()


def export_partition(settings: ExportSettings, partition: Any) -> Written:
    """Write one native partition; the task of a parallel export.

    Parameters
    ----------
    settings : ExportSettings
    partition : iterable of objects
        What the engine holds for the partition.
    """
    return write_parts(partition, settings.uri, settings.export, batch_size=settings.batch_size)


def manifest_of(results: Iterable[Written]) -> Manifest:
    """Put the parts of all writers together, in the order of the results.

    Raises
    ------
    DataError
        When there are no rows at all, or two writers' objects do not agree.
    """
    parts: list[Part] = []
    layout: Layout | None = None
    first = ""
    chunks: set[int] = set()
    for written in results:
        if written.layout is None:
            continue
        name = written.parts[0].name
        layout = written.layout if layout is None else layout.merge(written.layout, (first, name))
        first = first or name
        parts.extend(written.parts)
        chunks.add(written.chunk_rows)
    if layout is None:
        raise EmptyDataError("there is nothing to export: the data has no examples at all")
    return Manifest(layout.kind, tuple(parts), columns=layout.columns, chunk_rows=max(chunks))  # type: ignore[arg-type]


def remove_others(uri: str, keep: Manifest | None, export: str | None = None) -> None:
    """Remove the parts that `keep` does not list: those of one export, or all."""
    listed = {part.name for part in keep.parts} if keep else set()
    for name in store.children(uri):
        if name.startswith("part-") and name not in listed and (export is None or f"-{export}-" in name):
            store.remove(store.join(uri, name))
