"""A load of DL4J's files to whole parts of a dataset: the task of an import, and what it leaves to be found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import TypeAdapter, ValidationError

from strombus.data import store
from strombus.data.dl4j_files import layout_of, open_file
from strombus.data.manifest import JOURNAL
from strombus.data.rows import Column, Layout
from strombus.data.stored import StoredFile
from strombus.data.writer import PartWriter, Written
from strombus.documents import counted
from strombus.errors import DataError
from strombus.files import read_whole, write_whole
from strombus.interchange.dl4j.binary import Input
from strombus.interchange.dl4j.datasets import Description, describe_dataset, read_rows
from strombus.types import Columns, from_columns

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


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not in the dataset, and why; `bad` where it should have been; `size` are its bytes."""

    file: str
    reason: str
    bad: bool = False
    size: int = 0

    def __str__(self) -> str:
        return self.reason if self.reason.startswith(self.file) else f"{self.file}: {self.reason}"


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
    size : int
        Bytes of all files, damaged ones too.
    """

    files: int
    examples: int
    parts: int
    kind: str
    columns: Mapping[str, Column]
    skipped: tuple[Skipped, ...] = ()
    metadata: int = 0
    size: int = 0

    @property
    def lost(self) -> float:
        """Share of all bytes that bad files have: how many of the rows they held nobody can say."""
        return sum(one.size for one in self.skipped if one.bad) / self.size if self.size else 0.0

    def __str__(self) -> str:
        examples, files = counted(self.examples, "example"), counted(self.files, "file")
        lines = [f"{self.kind} of {examples} from {files}, in {counted(self.parts, 'part')}"]
        lines += [f"  {name:<16} {column.dtype:<10} {column.shape}" for name, column in self.columns.items()]
        if self.metadata:
            of = counted(self.metadata, "file")
            lines.append(f"left out metadata of examples, as Java serialises it, of {of}")
        bad, others = [one for one in self.skipped if one.bad], [one for one in self.skipped if not one.bad]
        if bad:
            lines.append(f"left out {counted(len(bad), 'bad file')}, {self.lost:.2%} of all bytes:")
            lines += [f"  {one}" for one in bad]
        if others:
            lines.append(f"passed over {len(others):,} without examples:")
            lines += [f"  {one}" for one in others]
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
    filling, layout, files, metadata, skipped = _Filling(writer, settings.layout), settings.layout, 0, 0, []
    for file in load.files:
        with open_file(file) as stream:
            try:
                description = describe_dataset(stream)
                layout = _agreed(layout, description, settings.first, stream)
                whole = None if _is_plain(description) else read_rows(stream, description, 0, description.rows)
            except DataError as error:
                if not settings.keep_going:
                    raise
                skipped.append(Skipped(file.uri, str(error), True, file.size))
                continue
            filling.take(stream, description, whole)
        metadata += description.metadata > 0
        files += description.rows > 0
        if not description.rows:
            skipped.append(Skipped(file.uri, "no examples"))
    filling.flush()
    converted = Converted(writer.finish(), files, metadata, tuple(skipped))
    write_whole(_note(settings.uri, load), _RECORD.dump_json(converted))
    return converted


def _agreed(layout: Layout, description: Description, first: str, stream: Input) -> Layout:
    """Return the layout of all files so far and this one."""
    if not description.rows:
        return layout
    here = layout_of(description)
    try:
        return layout.merge(here)
    except DataError:
        raise stream.fail(
            f"it is {here}, and the first file, {first}, is {layout}; all must agree in kind, dtypes and shapes", 0
        ) from None


def _is_plain(description: Description) -> bool:
    """Say whether the numbers can be read into place: in C order, and none that can turn out to be none."""
    return all(p.header.contiguous and p.header.type not in {"BOOL", "BFLOAT16"} for p in description.arrays.values())


class _Filling:
    """A part in memory, into which files are read; handed to the writer whenever it is full."""

    def __init__(self, writer: PartWriter, layout: Layout) -> None:
        self._writer = writer
        self._kind = layout.kind
        self._room = writer.part_rows(layout)
        self._columns: Columns = {}
        self._spare: Columns = {}
        self._rows = 0

    def take(self, stream: Input, description: Description, whole: Columns | None) -> None:
        """Put all rows of a file into parts; `whole` where they had to be read before."""
        at = 0
        while at < description.rows:
            stop = min(at + self._room - self._rows, description.rows)
            places = self._places(description, stop - at)
            if whole is None:
                read_rows(stream, description, at, stop, places)
            else:
                for name, place in places.items():
                    place[...] = whole[name][at:stop]
            self._rows += stop - at
            at = stop
            if self._rows == self._room:
                self.flush()

    def _places(self, description: Description, rows: int) -> Columns:
        """Return where the next rows go; a mask that a file lacks is ones."""
        for name, placed in description.arrays.items():
            if name not in self._columns:
                header = placed.header
                spare = self._spare.pop(name, None)
                self._columns[name] = (
                    np.empty((self._room, *header.shape[1:]), header.dtype) if spare is None else spare
                )
                self._columns[name][: self._rows] = 1
        span = slice(self._rows, self._rows + rows)
        for name in self._columns.keys() - description.arrays.keys():
            self._columns[name][span] = 1
        return {name: self._columns[name][span] for name in description.arrays}

    def flush(self) -> None:
        """Hand over what is there."""
        if self._rows:
            found = {name: array[: self._rows] for name, array in self._columns.items()}
            self._writer.add(from_columns(self._kind, found), copy=False)
        # memory that is used again costs no page faults; a full part is written by now
        self._spare = {} if self._writer.waiting else self._columns
        self._columns, self._rows = {}, 0


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
