"""A directory of files that DL4J saved, read by the workers where it lies."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from strombus.data.claims import LARGEST_BLOCK
from strombus.data.dl4j_files import find_all, layout_of, look_into, open_file
from strombus.data.kept import Kept
from strombus.data.rows import Layout, concatenate
from strombus.data.source import BLOCK_BYTES, OpenedSource, Transform, split_rows
from strombus.data.stored import THREADS, StoredFile
from strombus.documents import counted
from strombus.errors import DataError, EmptyDataError, StrombusWarning
from strombus.interchange.dl4j.datasets import describe_dataset, read_rows
from strombus.types import Block, Columns

__all__ = ["Dl4jSource", "FilledFile", "open_dl4j", "warn_of_metadata"]


@dataclass(frozen=True, slots=True)
class FilledFile:
    """A file with examples; `together` says that the numbers of each row lie together, so that some can be read."""

    file: StoredFile
    rows: int
    together: bool


def open_dl4j(uris: Sequence[str], transform: Transform | None = None) -> Dl4jSource:
    """Open DL4J's files, or directories of them, as one source.

    Every file is looked into, for its rows and shapes; its numbers are read by the workers.

    Raises
    ------
    MissingDataError
        When nothing is there.
    EmptyDataError
        When no file has examples.
    DataError
        When a file is damaged (names it, the byte and the reason), or files do not go together.
    """
    files = find_all(uris)[0]
    filled: list[FilledFile] = []
    layout: Layout | None = None
    metadata = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for file, description in zip(files, pool.map(look_into, files), strict=True):
            metadata += description.metadata > 0
            if description.rows:
                here = layout_of(description)
                layout = here if layout is None else layout.merge(here, (filled[0].file.uri, file.uri))
                filled.append(
                    FilledFile(
                        file, description.rows, all(placed.header.by_rows for placed in description.arrays.values())
                    )
                )
    if layout is None:
        raise EmptyDataError(f"there is no example in {counted(len(files), 'file')} at {', '.join(uris[:3])}")
    warn_of_metadata(metadata)
    return Dl4jSource(filled, layout, transform)


def warn_of_metadata(files: int) -> None:
    """Say, once, that there was what nothing reads."""
    if files:
        warnings.warn(
            f"{counted(files, 'file')} {'has' if files == 1 else 'have'} metadata of examples as Java serialises it: "
            f"it is skipped, since reading it could run anything; features, labels and masks are complete",
            StrombusWarning,
            stacklevel=3,
        )


class Dl4jSource(OpenedSource):
    """Rows of files that DL4J saved; made by `strombus.data.open_dataset`.

    Parameters
    ----------
    files : sequence of FilledFile
    layout : Layout
        Kind and columns of all files together.
    transform : callable, optional

    Notes
    -----
    Neighbours of up to 4 MiB together are one part, so that small files cost no more than large ones. Each reader
    keeps up to 64 MiB of what it has read last. A file is described again where it is read: one that has changed
    since is refused.
    """

    def __init__(self, files: Sequence[FilledFile], layout: Layout, transform: Transform | None = None) -> None:
        self.kind = layout.kind
        self.columns = layout.columns
        self.transform = transform
        self.groups = tuple(_grouped(files, layout.row_bytes))
        self.part_rows = tuple(sum(file.rows for file in group) for group in self.groups)
        self._start_empty()

    @property
    def stored(self) -> str:
        """How many files hold it."""
        return counted(sum(map(len, self.groups)), "file")

    def _start_empty(self) -> None:
        self._kept = Kept()
        self._lock = threading.Lock()

    def blocks(self) -> tuple[Block, ...]:
        """Return runs of about 4 MiB: some small files, or some rows of a large one."""
        found: list[Block] = []
        step = max(1, BLOCK_BYTES // self.layout.row_bytes)
        for number, (group, rows) in enumerate(zip(self.groups, self.part_rows, strict=True)):
            found.extend(split_rows(number, rows, step if group[0].together and len(group) == 1 else rows))
        return tuple(found)

    def read(self, block: Block) -> Columns:
        """Return a block's rows; see `Source.read`."""
        with self._lock:
            columns: Columns = self._kept.get(block, partial(self._read, block))
        return columns

    def release(self) -> None:
        """Drop what was kept."""
        self._kept.clear()

    def _read(self, block: Block) -> Columns:
        pieces: list[Columns] = []
        first = 0
        for file in self.groups[block.part]:
            start, stop = max(block.start - first, 0), min(block.stop - first, file.rows)
            if start < stop:
                pieces.append(self._rows(file, start, stop))
            first += file.rows
        return concatenate(self.layout, pieces)

    def _rows(self, file: FilledFile, start: int, stop: int) -> Columns:
        with open_file(file.file) as stream:
            description = describe_dataset(stream)
            found = layout_of(description)
            if description.rows != file.rows or self.layout.merge(found, ("the data", file.file.uri)) != self.layout:
                raise DataError(f"{file.file.uri} has changed since the data was opened; open it again")
            return read_rows(stream, description, start, stop)


def _grouped(files: Sequence[FilledFile], row_bytes: int) -> list[tuple[FilledFile, ...]]:
    """Put neighbours together up to the size of a block."""
    groups: list[tuple[FilledFile, ...]] = []
    pending: list[FilledFile] = []
    size = 0
    for file in files:
        here = file.rows * row_bytes
        if not file.together and here > LARGEST_BLOCK:
            raise DataError(
                f"{file.file.uri} has {here:,} bytes whose rows lie apart (Fortran order), at most {LARGEST_BLOCK:,} "
                f"are read at once; convert it with strombus data import-dl4j"
            )
        if pending and size + here > BLOCK_BYTES:
            groups.append(tuple(pending))
            pending, size = [], 0
        pending.append(file)
        size += here
    return [*groups, tuple(pending)]
