"""The files of a directory that DL4J exported to: found, described and opened, here or behind a URI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from strombus.data import store
from strombus.data.rows import Column, Layout
from strombus.data.stored import THREADS, StoredFile, look_at, natural_order, stored_file
from strombus.documents import counted
from strombus.errors import DataError, EmptyDataError, MissingDataError
from strombus.files import open_storage
from strombus.interchange.dl4j.binary import Input
from strombus.interchange.dl4j.datasets import Description, describe_dataset

__all__ = ["find_all", "first_layout", "holds_dl4j", "layout_of", "look_into", "open_file"]

SUFFIX = ".bin"
SMALL = 4 << 20
"""Bytes of a file that is fetched from a remote store in one request."""

_LOOK_BYTES = 1 << 16


def holds_dl4j(uri: str) -> bool:
    """Say whether a path is that of a file of DL4J, or of a directory with some, by the names alone."""
    fs, path = open_storage(uri)
    if uri.endswith(SUFFIX):
        return not (isinstance(fs, LocalFileSystem) and fs.isdir(path))
    return not store.exists(store.join(uri, "zarr.json")) and any(map(_is_ours, store.children(uri)))


def _is_ours(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith((".", "_"))


def find_files(uri: str) -> tuple[list[StoredFile], list[str]]:
    """Find DL4J's files at a path.

    Parameters
    ----------
    uri : str
        Of a file, or of a directory, whose ``*.bin`` files are meant (``dataset_*.bin`` and ``mds_*.bin`` is how DL4J
        calls them).

    Returns
    -------
    files : list of StoredFile
        In the order of the numbers in their names.
    others : list of str
        Names in the directory that are not taken for data; hidden ones, such as checksums, are not told.

    Raises
    ------
    MissingDataError
        When there are none.
    DataError
        When one is a symbolic link or no regular file.
    """
    fs, path, info = look_at(uri)
    if info["type"] != "directory":
        return [stored_file(uri, info)], []
    found = {str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]: entry for entry in fs.ls(path, detail=True)}
    found.pop(str(path).rstrip("/").rsplit("/", 1)[-1], None)  # object stores list the directory itself too
    names = sorted(filter(_is_ours, found), key=natural_order)
    others = sorted(name for name in found.keys() - set(names) if not name.startswith((".", "_")))
    if not names:
        inside = f"it has {', '.join(others[:8])}" if others else "it is empty"
        raise MissingDataError(f"{uri} has no file *{SUFFIX}, as DL4J's exports are called; {inside}")
    for name in names:
        if found[name].get("islink"):
            raise DataError(
                f"{store.join(uri, name)} is a symbolic link: in a directory of data none is followed, since it may "
                f"lead anywhere; copy the directory with its links resolved (cp -RL)"
            )
    return [stored_file(store.join(uri, name), found[name]) for name in names], others


def find_all(uris: Sequence[str]) -> tuple[list[StoredFile], list[str]]:
    """Find the files at some paths; see `find_files`. The others are given with their whole paths."""
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(find_files, uris))
    others = [store.join(uri, name) for uri, (_, names) in zip(uris, found, strict=True) for name in names]
    return [file for files, _ in found for file in files], others


@contextmanager
def open_file(file: StoredFile, *, look: bool = False) -> Iterator[Input]:
    """Open a file for reading.

    Parameters
    ----------
    file : StoredFile
    look : bool
        Whether only little of it is wanted.

    Raises
    ------
    DataError
        When it cannot be opened; names it.
    """
    try:
        if store.is_local(file.uri):
            with open(file.uri, "rb") as stream:
                yield Input(stream, file.uri)
            return
        fs, path = open_storage(file.uri)
        if file.size <= SMALL and not look:
            yield Input(fs.cat_file(path), file.uri)
        else:
            with fs.open(path, "rb", **({"block_size": _LOOK_BYTES} if look else {})) as stream:
                yield Input(stream, file.uri, file.size)
    except FileNotFoundError as error:
        raise MissingDataError(f"{file.uri} is gone: {error}") from error
    except OSError as error:
        raise DataError(f"{file.uri} cannot be read: {type(error).__name__}: {error}") from error


def look_into(file: StoredFile) -> Description:
    """Say what a file holds, reading little of it."""
    with open_file(file, look=True) as stream:
        return describe_dataset(stream)


def layout_of(description: Description) -> Layout:
    """Return kind and columns."""
    columns: Iterable[tuple[str, Any]] = ((name, placed.header) for name, placed in description.arrays.items())
    return Layout(description.kind, {name: Column(h.dtype.name, h.shape[1:]) for name, h in columns})


def first_layout(files: Sequence[StoredFile], keep_going: bool = True) -> tuple[Layout, str]:
    """Return the layout of the first file with examples, and that file; `keep_going` passes over damaged ones.

    Raises
    ------
    EmptyDataError
        When there is none.
    """
    wrong = ""
    for file in files:
        try:
            description = look_into(file)
        except DataError as error:
            if not keep_going:
                raise
            wrong = wrong or f": {error}"
            continue
        if description.rows:
            return layout_of(description), file.uri
    raise EmptyDataError(f"no example can be read, of {counted(len(files), 'file')}{wrong}")
