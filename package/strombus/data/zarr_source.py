"""Datasets in Zarr: finished exports, plain groups of arrays, and lists of both."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from zarr.errors import GroupNotFoundError

from strombus.data import store
from strombus.data.claims import (
    LARGEST_BLOCK,
    check_array,
    check_inside,
    describe_array,
    missing_shards,
    open_array,
    open_group,
)
from strombus.data.kept import Kept
from strombus.data.manifest import Manifest, Part, read_manifest
from strombus.data.rows import Column, Layout, is_mask
from strombus.data.shards import ShardReader
from strombus.data.source import BLOCK_BYTES, OpenedSource, Transform, split_rows
from strombus.documents import shorten
from strombus.errors import DataError, MissingDataError, UnfinishedExportError
from strombus.types import Block, Columns

__all__ = ["ZarrPart", "ZarrSource", "open_zarr"]

_COLUMN = re.compile(r"(features|labels)(_mask)?(_\d{1,4})?", re.ASCII)

OPEN_ARRAYS = 64
MOST_BLOCKS = 1 << 21
"""Blocks of a source, each of about 4 MiB or one chunk."""

DECODERS = 2
"""Threads that decode the chunks of a block; few, since the workers of a machine share its cores."""


@dataclass(frozen=True, slots=True)
class ZarrPart:
    """A group of arrays with one first axis.

    `columns` are the arrays it has, `chunk_rows` the rows of a chunk, `whole` says that every shard must exist:
    in a plain group a chunk that was never written stands for the fill value.
    """

    uri: str
    rows: int
    columns: tuple[str, ...]
    chunk_rows: int
    whole: bool


def open_zarr(uris: Sequence[str], transform: Transform | None = None) -> ZarrSource:
    """Open groups as one source; see `strombus.data.open_dataset`."""
    parts: list[ZarrPart] = []
    layout: Layout | None = None
    for uri in uris:
        found, here = _parts_of(uri)
        layout = here if layout is None else layout.merge(here, (uris[0], uri))
        parts.extend(found)
    assert layout is not None
    return ZarrSource(parts, layout, transform)


def _parts_of(uri: str) -> tuple[list[ZarrPart], Layout]:
    try:
        manifest = read_manifest(uri)
    except (MissingDataError, UnfinishedExportError):
        raise
    except DataError:
        plain = _arrays(uri)
        if not plain:
            raise
        part, layout = _plain_part(uri, plain)
        return [part], layout
    return _listed_parts(uri, manifest)


def _listed_parts(uri: str, manifest: Manifest) -> tuple[list[ZarrPart], Layout]:
    """Take the manifest's word where it has one (workers check it), look at the groups where not."""
    if manifest.columns and manifest.chunk_rows and all(part.columns for part in manifest.parts):
        chunk = manifest.chunk_rows
        _check_chunks(uri, manifest)
        parts = [ZarrPart(store.join(uri, p.name), p.examples, p.columns, chunk, True) for p in manifest.parts]
        return parts, manifest.layout
    with ThreadPoolExecutor(8) as pool:
        looked = list(pool.map(lambda part: _looked_at(uri, part), manifest.parts))
    if not looked:
        raise DataError(f"the dataset {uri} has no parts; export the data again")
    layout = looked[0][1]
    for part, other in looked[1:]:
        layout = layout.merge(other, (looked[0][0].uri, part.uri))
    return [part for part, _ in looked], layout


def _check_chunks(uri: str, manifest: Manifest) -> None:
    """Hold what a manifest says of chunks against what a worker would decode at once."""
    rows = min(manifest.chunk_rows, max((part.examples for part in manifest.parts), default=0))
    for name, column in manifest.columns.items():
        if rows * column.row_bytes > LARGEST_BLOCK:
            raise DataError(
                f"the manifest of {uri} claims chunks of {rows} rows, {rows * column.row_bytes:.3g} bytes of {name}; "
                f"at most {LARGEST_BLOCK} are read"
            )


def _looked_at(uri: str, listed: Part) -> tuple[ZarrPart, Layout]:
    part_uri = store.join(uri, listed.name)
    check_inside(part_uri)
    part, layout = _plain_part(part_uri, _arrays(part_uri))
    if part.rows != listed.examples:
        raise DataError(f"part {part_uri} has {part.rows} rows, its manifest says {listed.examples}; validate it")
    return ZarrPart(part.uri, part.rows, part.columns, part.chunk_rows, True), layout


def _arrays(uri: str) -> dict[str, Any]:
    """Return the columns' arrays of a group; empty when there is no readable group."""
    try:
        group = open_group(uri)
    except (GroupNotFoundError, FileNotFoundError):
        return {}
    listed = group.metadata.consolidated_metadata
    found: dict[str, Any] = {}
    for name in filter(_COLUMN.fullmatch, store.children(uri) if listed is None else listed.metadata):
        with suppress(FileNotFoundError):  # a group, or something else that only has such a name
            found[name] = open_array(store.join(uri, name))
    return found


def _plain_part(uri: str, arrays: dict[str, Any]) -> tuple[ZarrPart, Layout]:
    kind = "DataSet" if "features" in arrays else "MultiDataSet"
    if not {"features", "features_0"} & arrays.keys() or any(not a.shape for a in arrays.values()):
        raise DataError(f"{uri} needs an array features (or features_0, ...), it has {sorted(arrays) or 'no arrays'}")
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the arrays of {uri} must have the same number of examples, they have {lengths}")
    columns = {name: Column(np.dtype(a.dtype).name, tuple(a.shape[1:])) for name, a in sorted(arrays.items())}
    widest = max(columns, key=lambda name: columns[name].row_bytes)
    chunk_rows = max(1, arrays[widest].chunks[0])
    return ZarrPart(uri, arrays[widest].shape[0], tuple(columns), chunk_rows, False), Layout(kind, columns)


def _keys_of(part: ZarrPart, start: int, stop: int) -> Any:
    uri = store.join(part.uri, "keys")
    try:
        array = open_array(uri, texts=True)
        if array.shape == (part.rows,):
            return array[start:stop]
    except Exception as error:
        raise DataError(f"{uri} cannot be read ({type(error).__name__}: {error}), the first part has keys") from error
    raise DataError(f"{uri} must have one key for each of {part.rows} rows, its shape is {array.shape}")


class ZarrSource(OpenedSource):
    """Rows of Zarr groups; made by `strombus.data.open_dataset`.

    Parameters
    ----------
    parts : sequence of ZarrPart
    layout : Layout
        Kind and columns of all parts together.
    transform : callable, optional

    Notes
    -----
    Arrays are opened when first read, and kept open, along with up to 64 MiB of the blocks decoded last
    (a worker that reads a window in several rounds decodes it once). Neither is pickled.
    """

    def __init__(self, parts: Sequence[ZarrPart], layout: Layout, transform: Transform | None = None) -> None:
        self.kind = layout.kind
        self.parts = tuple(parts)
        self.part_rows = tuple(part.rows for part in self.parts)
        self.columns = layout.columns
        self.transform = transform
        self._start_empty()

    def _start_empty(self) -> None:
        self._open: dict[tuple[int, str], tuple[Any, ShardReader | None]] = {}
        self._decoded = Kept()
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    @property
    def keyed(self) -> bool:
        """Whether there is an array ``keys``; the first part speaks for all."""
        return bool(self.parts) and store.exists(store.join(self.parts[0].uri, "keys"))

    def read_keys(self, start: int, stop: int) -> Any:
        """Return the keys of rows `start` to `stop`, counted over all parts."""
        found, first = [], 0
        for part in self.parts:
            low, high = max(start, first) - first, min(stop, first + part.rows) - first
            if low < high:
                found.append(_keys_of(part, low, high))
            first += part.rows
        return np.concatenate(found)

    def blocks(self) -> tuple[Block, ...]:
        """Return runs of whole chunks, about 4 MiB; a small part is one block."""
        row_bytes = self.layout.row_bytes
        found: list[Block] = []
        for number, part in enumerate(self.parts):
            step = max(1, round(BLOCK_BYTES / (row_bytes * part.chunk_rows))) * part.chunk_rows
            if len(found) + part.rows // step > MOST_BLOCKS:
                raise DataError(
                    f"{part.uri} claims {part.rows} rows, which with the parts before make more than {MOST_BLOCKS} "
                    f"blocks of {step} rows: that is more than fits into memory, or the metadata is not credible"
                )
            found.extend(split_rows(number, part.rows, step))
        return tuple(found)

    def read(self, block: Block) -> Columns:
        """Return a block's rows, all columns, in native byte order; see `Source.read`."""
        with self._lock:
            return {name: self._column(block, name) for name in self.columns}

    def release(self) -> None:
        """Drop the decoded blocks, and end the threads that decoded them."""
        with self._lock:
            self._decoded.clear()
            if self._pool is not None:
                self._pool.shutdown(wait=False)
                self._pool = None

    def _column(self, block: Block, name: str) -> Any:
        part, column = self.parts[block.part], self.columns[name]
        if name not in part.columns:
            if not is_mask(name):
                raise DataError(f"part {part.uri} has no array {name}, other parts of the dataset have it")
            return np.ones((block.rows, *column.shape), column.dtype)
        if part.rows * column.row_bytes <= BLOCK_BYTES:  # a narrow column is read for all the part's blocks at once
            return self._span(block.part, name, 0, part.rows)[block.start : block.stop]
        return self._span(block.part, name, block.start, block.stop)

    def _span(self, number: int, name: str, start: int, stop: int) -> Any:
        key = (number, name, start, stop)
        return self._decoded.get(key, partial(self._decode, *key))

    def _decode(self, number: int, name: str, start: int, stop: int) -> Any:
        uri = store.join(self.parts[number].uri, name)
        try:
            array, shard = self._array(number, name)
            found = array[start:stop] if shard is None else shard.read(start, stop, self._decoders())
            return np.asarray(found, dtype=self.columns[name].dtype)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"rows {start} to {stop} of {uri} cannot be read: {type(error).__name__}: {error}; "
                f"strombus.data.validate tells which parts are damaged"
            ) from error

    def _decoders(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="strombus-decode")
        return self._pool

    def _array(self, number: int, name: str) -> tuple[Any, ShardReader | None]:
        if (number, name) not in self._open:
            part, column = self.parts[number], self.columns[name]
            uri = store.join(part.uri, name)
            if part.whole:
                check_inside(part.uri)
            array = describe_array(uri)
            wanted = (column.dtype, (part.rows, *column.shape))
            if (np.dtype(array.dtype).name, array.shape) != wanted:
                found = shorten((str(array.dtype), array.shape))
                raise DataError(f"{uri} was promised as {wanted}, it is {found}; validate it")
            check_array(array, uri)
            if part.whole and (lost := missing_shards(array, uri)):
                raise DataError(f"{uri} has lost {', '.join(lost[:3])}; restore it or export the data again")
            if len(self._open) >= OPEN_ARRAYS:
                self._open.clear()
            self._open[number, name] = (array, ShardReader.of(array, uri) if part.whole else None)
        return self._open[number, name]
