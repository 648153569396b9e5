"""A load of DL4J's files to whole parts of a dataset: the task of an import, and what it leaves to be found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from strombus.data import store
from strombus.data.dl4j_files import StoredFile, layout_of, open_file
from strombus.data.manifest import JOURNAL
from strombus.data.rows import Column, Layout, Rows
from strombus.data.writer import PartWriter, Written
from strombus.errors import DataError
from strombus.files import read_whole, write_whole
from strombus.interchange.dl4j.datasets import Description, describe_dataset, read_counted, read_rows
from strombus.types import from_columns

__all__ = [
    "ConversionSettings",
    "Converted",
    "Inventory",
    "Load",
    "Skipped",
    "convert_load",
    "plan_loads",
    "read_converted",
]

LOAD_BYTES = 64 << 20
"""Bytes of the files of one task."""

LARGEST_NOTE = 64 << 20

WHOLE_BYTES = 64 << 20
"""Bytes of a file that is read at once."""

STEP_BYTES = 16 << 20
"""Bytes of the rows that are read at once of a larger one."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not in the dataset, and why; `bad` where it should have been."""

    file: str
    reason: str
    bad: bool = False

    def __str__(self) -> str:
        return self.reason if self.file in self.reason else f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class Inventory:
    """What an import found.

    Parameters
    ----------
    files : int
        Those with examples.
    examples, parts : int
    kind : {"DataSet", "MultiDataSet"}
    columns : mapping of str to Column
        Dtype and shape of a row of each array.
    skipped : tuple of Skipped
        Files without examples, damaged or unlike the others, and what else lay in the directory.
    metadata : int
        Files with examples' metadata, which is left out.
    """

    files: int
    examples: int
    parts: int
    kind: str
    columns: Mapping[str, Column]
    skipped: tuple[Skipped, ...] = ()
    metadata: int = 0

    def __str__(self) -> str:
        lines = [f"{self.kind} of {self.examples:,} examples from {self.files:,} files, in {self.parts:,} parts"]
        lines += [f"  {name:<16} {column.dtype:<10} {column.shape}" for name, column in self.columns.items()]
        if self.metadata:
            lines.append(f"left out metadata of examples, as Java serialises it, of {self.metadata:,} files")
        if self.skipped:
            lines.append(f"skipped {len(self.skipped):,}:")
            lines += [f"  {one}" for one in self.skipped]
        return "\n".join(lines)


@dataclass(frozen=True)
class ConversionSettings:
    """What every worker of an import has to know.

    Parameters
    ----------
    uri : str
        The dataset's root.
    export : str
        Unique name of this run; the parts it writes carry it.
    batch_size : int
    layout : Layout
        Of `first`, the first file with examples; all others must agree with it.
    first : str
    keep_going : bool
        Whether a bad file is listed, or ends the import.
    """

    uri: str
    export: str
    batch_size: int
    layout: Layout
    first: str
    keep_going: bool


@dataclass(frozen=True, slots=True)
class Load:
    """Files that one task converts, in order; `key` names them, their sizes and versions, and what is made of them."""

    key: str
    files: tuple[StoredFile, ...]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Converted:
    """What became of a load."""

    written: Written = field(default_factory=Written)
    files: int = 0
    metadata: int = 0
    skipped: tuple[Skipped, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether a file was left out that should be there."""
        return any(one.bad for one in self.skipped)


_RECORD = TypeAdapter(Converted)


def plan_loads(files: Sequence[StoredFile], settings: ConversionSettings) -> list[Load]:
    """Cut files into loads of about 64 MiB, always in the same way."""
    groups: list[list[StoredFile]] = []
    size = 0
    for file in files:
        if not groups or size + file.size > LOAD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.size
    return [Load(_key(group, settings), tuple(group)) for group in groups]


def _key(files: Iterable[StoredFile], settings: ConversionSettings) -> str:
    text = repr(([(f.uri, f.size, f.version) for f in files], settings.batch_size, str(settings.layout)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def convert_load(settings: ConversionSettings, load: Load) -> Converted:
    """Write a load's rows as parts, and a note of it when all are there; a task."""
    writer = PartWriter(settings.uri, settings.export, settings.batch_size)
    layout, files, metadata, skipped = settings.layout, 0, 0, []
    for file in load.files:
        objects = _Objects(file)
        try:
            first = next(objects.rows, None)
            if first is not None:
                layout = layout.merge(Layout.of(first), (settings.first, file.uri))
        except DataError as error:
            if not settings.keep_going:
                raise
            skipped.append(Skipped(file.uri, str(error), True))
            continue
        metadata += objects.metadata
        if first is None:
            skipped.append(Skipped(file.uri, "no examples"))
            continue
        files += 1
        writer.add(first, copy=False)
        for rows in objects.rows:
            writer.add(rows, copy=False)
    converted = Converted(writer.finish(), files, metadata, tuple(skipped))
    write_whole(_note(settings.uri, load), _RECORD.dump_json(converted))
    return converted


class _Objects:
    """The rows of a file: one object, or several of a large file; none of them before all that can be wrong is seen."""

    def __init__(self, file: StoredFile) -> None:
        self.metadata = 0
        self.rows = self._read(file)

    def _read(self, file: StoredFile) -> Iterator[Rows]:
        with open_file(file) as stream:
            if file.size <= WHOLE_BYTES:
                found, metadata = read_counted(stream)
                self.metadata = metadata > 0
                if found is not None and found.examples:
                    yield found
                return
            description = describe_dataset(stream)
            self.metadata = description.metadata > 0
            step = _step(description)
            for start in range(0, description.rows, step):
                rows = read_rows(stream, description, start, min(start + step, description.rows))
                yield from_columns(description.kind, rows)


def _step(description: Description) -> int:
    """Return rows to read at once: all where they lie apart, or where a BOOL may yet turn out to be none."""
    headers = [placed.header for placed in description.arrays.values()]
    if any(header.type == "BOOL" or not header.by_rows for header in headers):
        return max(1, description.rows)
    return max(1, STEP_BYTES // layout_of(description).row_bytes)


def _note(uri: str, load: Load) -> str:
    return store.join(uri, JOURNAL, f"{load.key}.json")


def read_converted(uri: str, load: Load, parts: set[str]) -> Converted | None:
    """Return what an earlier run made of a load; None where it did not finish it, or `parts` lacks some of it."""
    note = _note(uri, load)
    try:
        found = _RECORD.validate_json(read_whole(note, LARGEST_NOTE))
    except (FileNotFoundError, DataError, ValidationError):
        return None
    return found if all(part.name in parts for part in found.written.parts) else None
