"""What a finished dataset consists of: the attributes of its root group, written last."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

import zarr
from pydantic import ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from zarr.errors import GroupNotFoundError

from strombus.data.claims import check_column, open_group
from strombus.data.rows import Column, Layout
from strombus.data.store import children, exists, join, normalise
from strombus.documents import shorten
from strombus.errors import DataError, MissingDataError, UnfinishedExportError
from strombus.files import open_storage

__all__ = ["JOURNAL", "Manifest", "Part", "is_finished", "read_manifest", "write_manifest"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=200)]
Count = Annotated[int, Field(ge=0, lt=2**62)]
_STRICT = ConfigDict(extra="forbid")
VERSION = 1

JOURNAL = "import-dl4j"
"""Directory that says which loads of an import are done; it is there until all are."""


@dataclass(frozen=True, config=_STRICT)
class Part:
    """One child group.

    Parameters
    ----------
    name : str
        The group's name: letters, digits, ``-`` and ``_`` only, since a manifest is read from anywhere.
    examples : int
    columns : tuple of str
        The arrays it has; empty where the writer did not say.
    """

    name: Name
    examples: Count
    columns: tuple[Name, ...] = ()


@dataclass(frozen=True, config=_STRICT)
class Manifest:
    """The parts of a dataset in order.

    Parameters
    ----------
    kind : {"DataSet", "MultiDataSet"}
    parts : tuple of Part
    version : int
        Version of the format.
    columns : mapping of str to Column
        Dtype and trailing shape of every column; empty where the writer did not say.
    chunk_rows : int
        Rows of a chunk in parts that have more than one; 0 where the writer did not say.
    """

    kind: Literal["DataSet", "MultiDataSet"]
    parts: Annotated[tuple[Part, ...], FailFast()]
    version: Literal[1] = 1
    columns: Mapping[Name, Column] = field(default_factory=dict)
    chunk_rows: Count = 0

    @property
    def examples(self) -> int:
        """Rows of all parts."""
        return sum(part.examples for part in self.parts)

    @property
    def layout(self) -> Layout:
        """Kind and columns."""
        return Layout(self.kind, self.columns)


_ADAPTER = TypeAdapter(Manifest)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read the manifest of the dataset at `path`.

    Raises
    ------
    MissingDataError
        When nothing is there.
    UnfinishedExportError
        When there are parts but no manifest.
    DataError
        When the manifest is broken, or the group is something else.
    """
    uri = normalise(path)
    try:
        attributes = dict(open_group(uri).attrs)
    except (GroupNotFoundError, FileNotFoundError):
        attributes = {}
    if "strombus" not in attributes:
        raise _why_not(uri)
    return _parse(uri, attributes["strombus"])


def _parse(uri: str, record: Any) -> Manifest:
    if not isinstance(record, dict):
        raise DataError(f"the manifest of {uri} must be a mapping, got {type(record).__name__}")
    if record.get("version") != VERSION:
        version = shorten(record.get("version"))
        raise DataError(f"the manifest of {uri} has version {version}, this release reads {VERSION}")
    try:
        manifest = _ADAPTER.validate_python({k: v for k, v in record.items() if k != "examples"})
    except ValidationError as error:
        raise DataError(f"the manifest of {uri} is broken, export the data again: {str(error)[:1000]}") from None
    for name, column in manifest.columns.items():
        check_column(column.dtype, tuple(column.shape), f"the column {name} in the manifest of {uri}")
    names = [part.name for part in manifest.parts]
    if len(set(names)) != len(names):
        raise DataError(f"the manifest of {uri} lists a part twice; export the data again")
    if record.get("examples", manifest.examples) != manifest.examples:
        raise DataError(
            f"the manifest of {uri} promises {shorten(record['examples'])} examples, its parts have {manifest.examples}"
        )
    return manifest


def _why_not(uri: str) -> DataError:
    names = children(uri)
    if JOURNAL in names:
        return UnfinishedExportError(
            f"{uri} is an import of DL4J's files that did not finish: run it again, and it goes on where it ended"
        )
    if any(name.startswith("part-") for name in names):
        return UnfinishedExportError(
            f"{uri} has parts but no manifest: an export that did not finish; export again with overwrite=True"
        )
    if not exists(uri):
        return MissingDataError(f"no data at {uri}: neither a file nor a directory; check the path")
    files, target = open_storage(uri)
    if files.isfile(target):
        return DataError(
            f"{uri} is a file, and no dataset, which is a directory; a file may be Parquet (.parquet) or what DL4J's "
            "DataSet.save wrote (.bin)"
        )
    inside = f"; it has {', '.join(names[:8])}: name one of them?" if names else " (an empty directory)"
    return DataError(f"{uri} is not a dataset: no manifest and no features array{inside}")


def is_finished(path: str | os.PathLike[str]) -> bool:
    """Say whether a manifest is there, broken or not."""
    try:
        read_manifest(path)
    except (MissingDataError, UnfinishedExportError):
        return False
    except DataError:
        return exists(join(normalise(path), "zarr.json"))
    return True


def write_manifest(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write or replace the manifest in one step: a reader sees the old one or the new one, or an unfinished export."""
    record = _ADAPTER.dump_python(manifest, mode="json")
    record = {"version": record.pop("version"), "kind": record.pop("kind"), "examples": manifest.examples, **record}
    columns = {name: {"dtype": c.dtype, "shape": list(c.shape)} for name, c in manifest.columns.items()}
    group = zarr.open_group(normalise(path), mode="a")
    group.update_attributes({"strombus": {**record, "columns": columns}})
