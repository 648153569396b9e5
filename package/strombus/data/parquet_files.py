"""Parquet files: found at paths and URIs, described by their footers, opened."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from strombus.data import store
from strombus.data.columns import Name, TableColumns, no_numbers
from strombus.data.stored import StoredFile, look_at, natural_order, stored_file
from strombus.errors import ConfigurationError, DataError, MissingDataError
from strombus.files import open_storage

__all__ = ["Footer", "ParquetFiles", "column_names", "find_parquet", "holds_parquet", "read_footer"]

SUFFIXES = (".parquet", ".parq", ".pq")

FOOTERS = 8
"""Footers that a reader keeps: to parse one of thousands of columns and row groups takes as long as to decode these."""

_VECTOR = {"type", "size", "indices", "values"}


@dataclass(frozen=True, slots=True)
class Footer:
    """Rows of each row group, and the form of each column that must hold numbers."""

    rows: tuple[int, ...]
    forms: dict[Name, str]


def holds_parquet(uri: str) -> bool:
    """Say whether a path is that of a Parquet file, or of a directory with some, by the names alone."""
    if _is_ours(uri.rsplit("/", 1)[-1]):
        return True
    return not store.exists(store.join(uri, "zarr.json")) and any(map(_is_ours, store.children(uri)))


def _is_ours(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith((".", "_"))


def find_parquet(uri: str) -> list[StoredFile]:
    """Find the Parquet files at a path: the file, or those in a directory and in directories below it.

    They are in the order of the numbers in their names; hidden ones, and what lies in hidden directories, are left out.

    Raises
    ------
    MissingDataError
        When there are none.
    """
    fs, path, info = look_at(uri)
    if info["type"] != "directory":
        return [stored_file(uri, info)]
    root = str(path).rstrip("/") + "/"
    found = {str(name).removeprefix(root): entry for name, entry in fs.find(path, detail=True).items()}
    names = [name for name in found if all(map(_is_shown, name.split("/"))) and name.endswith(SUFFIXES)]
    if not names:
        raise MissingDataError(f"{uri} has no file *{', *'.join(SUFFIXES)}; check the path")
    return [stored_file(store.join(uri, name), found[name]) for name in sorted(names, key=natural_order)]


def _is_shown(name: str) -> bool:
    return not name.startswith((".", "_"))


class ParquetFiles:
    """Files that are opened again and again; the footers read last are kept, and at no place in another process.

    Parameters
    ----------
    files : sequence of StoredFile
    """

    def __init__(self, files: Sequence[StoredFile]) -> None:
        self._files = tuple(files)
        self._footers: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[ParquetFiles], tuple[tuple[StoredFile, ...]]]:
        return ParquetFiles, (self._files,)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> StoredFile:
        return self._files[number]

    @contextmanager
    def open(self, number: int, **options: Any) -> Iterator[Any]:
        """Open a file as `open_parquet_file` does; DataError where its size has changed."""
        with self._lock:
            footer = self._footers.get(number)
        with open_parquet_file(self[number], metadata=footer, **options) as opened:
            with self._lock:
                self._footers[number] = opened.metadata
                self._footers.move_to_end(number)
                if len(self._footers) > FOOTERS:
                    self._footers.popitem(last=False)
            yield opened


@contextmanager
def open_parquet_file(file: StoredFile, **options: Any) -> Iterator[Any]:
    """Open a file as a ``pyarrow.parquet.ParquetFile``.

    Raises
    ------
    ConfigurationError
        Without pyarrow.
    MissingDataError, DataError
        When the file is gone, has another size, or is damaged, here or while it is read; names it.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigurationError(
            f"Parquet files need pyarrow ({error}): run `pip install strombus[tables]`, on the workers too"
        ) from error
    try:
        with _stream(file) as stream, parquet.ParquetFile(stream, **options) as opened:
            yield opened
    except FileNotFoundError as error:
        raise MissingDataError(f"{file.uri} is gone: {error}") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file.uri} cannot be read as Parquet: {type(error).__name__}: {str(error)[:500]}") from error


@contextmanager
def _stream(file: StoredFile) -> Iterator[Any]:
    """Give what pyarrow reads: a path of this machine, or an open file."""
    if store.is_local(file.uri):
        _check_size(file, os.path.getsize(file.uri))
        yield file.uri
    else:
        fs, path = open_storage(file.uri)
        with fs.open(path, "rb") as stream:
            _check_size(file, getattr(stream, "size", None) or file.size)
            yield stream


def _check_size(file: StoredFile, size: int) -> None:
    if size != file.size:
        raise DataError(f"{file.uri} has changed since the data was opened; open it again")


def column_names(uri: str) -> list[str]:
    """Return the columns of the first file at a path."""
    with open_parquet_file(find_parquet(uri)[0]) as opened:
        return [str(name) for name in opened.schema_arrow.names]


def read_footer(file: StoredFile, columns: TableColumns) -> Footer:
    """Look at a file's footer; DataError where it lacks a column, or one holds no numbers."""
    with open_parquet_file(file) as opened:
        schema, metadata = opened.schema_arrow, opened.metadata
        columns.check(schema.names, file.uri)
        rows = tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    return Footer(rows, {name: _form(schema.field(name).type, name) for name in columns.numbers})


def _form(kind: Any, name: Name) -> str:
    """Return what must be alike in all files."""
    text = str(kind)
    if text.startswith(("list", "large_list", "fixed_size_list")):
        return f"list of {_form(kind.value_type, name)}"
    if text.startswith("struct") and {field.name for field in kind} == _VECTOR:
        return "vector"
    if not text.startswith(("int", "uint", "half", "float", "double", "bool")):
        raise no_numbers(name, text, "parquet")
    return text
