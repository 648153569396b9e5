"""Zarr groups and arrays opened without believing what they claim: first looked at, then read.

Metadata costs its writer nothing: a shape of 10^15 is as short as one of 10. Before anything is allocated the claims
are held against bounds, and against the bytes that are really stored.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import zarr
from zarr.errors import GroupNotFoundError

from strombus.data import store
from strombus.data.codecs import bounded
from strombus.documents import shorten
from strombus.errors import DataError
from strombus.files import open_storage

__all__ = [
    "LARGEST_BLOCK",
    "check_array",
    "check_column",
    "check_inside",
    "describe_array",
    "missing_shards",
    "open_array",
    "open_group",
]

LARGEST_GROUP, LARGEST_ARRAY = 64 << 20, 1 << 20
"""Bytes of metadata; the manifest of 300 000 parts has about the former."""

LARGEST_BLOCK = 512 << 20
"""Bytes of a row, and of a chunk with all that lies beside it in its rows: as much must be decoded at once."""

MOST_CHUNKS = 1 << 20
"""Chunks of an array, and of a shard."""

_DENSEST = 100_000
"""Bytes that one stored byte may stand for; equal values compress to a 30 000th with zstd, more so with blosc."""

_SMALL = 64 << 20
"""Bytes that an array may claim whatever is stored: what was never written stands for the fill value."""

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_KINDS = "biufcmMSU"


def open_group(uri: str) -> Any:
    """Open a group for reading.

    Raises
    ------
    GroupNotFoundError, FileNotFoundError
        When there is none.
    DataError
        When its metadata cannot be read, is too large, or lies behind a symbolic link.
    """
    _check_metadata(uri, LARGEST_GROUP)
    try:
        return zarr.open_group(uri, mode="r")
    except (GroupNotFoundError, FileNotFoundError):
        raise
    except Exception as error:  # metadata from anywhere may break Zarr in any place
        raise _unreadable(uri, error) from error


def open_array(uri: str, *, texts: bool = False) -> Any:
    """Open an array for reading; it decodes no more than its metadata says.

    Parameters
    ----------
    texts : bool
        Whether texts of any length may be in it.

    Raises
    ------
    FileNotFoundError
        When there is none.
    DataError
        When its metadata cannot be read, claims what cannot be, or what is stored is no plain files.
    """
    array = describe_array(uri)
    check_array(array, uri, texts=texts)
    return array


def describe_array(uri: str) -> Any:
    """Open an array as `open_array` does, to see what its metadata says; `check_array` comes before any reading."""
    check_inside(uri)
    _check_metadata(uri, LARGEST_ARRAY)
    try:
        with store.codecs(uri):
            return bounded(zarr.open_array(uri, mode="r"))
    except FileNotFoundError:
        raise
    except DataError as error:
        raise DataError(f"{uri} cannot be used: {error}") from None
    except Exception as error:
        raise _unreadable(uri, error) from error


def check_array(array: Any, uri: str, *, texts: bool = False) -> None:
    """Raise DataError when an array claims what cannot be, or what is stored is no plain files."""
    try:
        _check_claims(array, texts)
    except DataError as error:
        raise DataError(f"{uri} cannot be used: {error}") from None
    except Exception as error:  # such as of a grid that has no chunks of one shape
        raise _unreadable(uri, error) from error
    _check_stored(array, uri)


def _unreadable(uri: str, error: Exception) -> DataError:
    what = f"{type(error).__name__}: {str(error)[:500]}"
    return DataError(f"the metadata of {uri} cannot be read ({what}); export the data again")


def check_column(dtype: str, shape: tuple[int, ...], what: str) -> None:
    """Raise DataError unless a column of this dtype and trailing shape can be data."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        found = None
    if found is None or found.kind not in _KINDS or found.subdtype is not None:
        raise DataError(f"{what} has the dtype {shorten(dtype)}; numbers, truth values or texts of a size are wanted")
    row = found.itemsize * prod(shape)
    if len(shape) > 31 or any(side < 0 for side in shape) or row > LARGEST_BLOCK:
        raise DataError(f"{what} claims {row:.3g} bytes a row {shorten(shape)}, at most {LARGEST_BLOCK} are read")


def _check_claims(array: Any, texts: bool) -> None:
    """Hold shape, dtype and chunks against the bounds."""
    native = array.metadata.dtype.to_native_dtype()
    shape = tuple(array.shape)
    if texts and (native.kind == "T" or native.hasobject):
        row = 16 * prod(shape[1:])
    else:
        check_column(native.str, shape[1:], "it")
        row = native.itemsize * prod(shape[1:])
    if not shape:
        return
    outer = array.shards or array.chunks
    if any(side < 1 for side in (*outer, *array.chunks)):
        raise DataError(f"its chunks have the shape {shorten(array.chunks)}")
    if (chunks := _count(shape, outer)) > MOST_CHUNKS:
        raise DataError(f"it claims {chunks} chunks, at most {MOST_CHUNKS} are read; write it with larger ones")
    if (chunks := _count(outer, array.chunks)) > MOST_CHUNKS:
        raise DataError(f"it claims {chunks} chunks in a shard, at most {MOST_CHUNKS} are read")
    widened = native.itemsize * prod(max(pair) for pair in zip(array.chunks, (1, *shape[1:]), strict=True))
    if max(row, widened) > LARGEST_BLOCK:
        raise DataError(
            f"it claims chunks of {array.chunks[0]} rows, {widened:.3g} bytes; at most {LARGEST_BLOCK} are decoded at "
            f"once: write it with smaller chunks"
        )


def _count(shape: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    return prod(-(-size // step) for size, step in zip(shape, chunks, strict=True))


def check_inside(uri: str) -> None:
    """Raise DataError when a directory in a dataset is a symbolic link; that the dataset's own path is one is fine."""
    if store.is_local(uri) and os.path.islink(uri):
        _check_plain(uri, stat.S_IFLNK)


def _check_metadata(uri: str, most: int) -> None:
    """Look at the files that Zarr is about to read whole."""
    for name in _METADATA:
        path = store.join(uri, name)
        if store.is_local(uri):
            try:
                found = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                raise DataError(f"{shorten(path)} cannot be read: {error}") from None
            _check_plain(path, found.st_mode)
            size = found.st_size
        else:
            size = store.size(path)
        if size > most:
            raise DataError(f"{path} has {size:,} bytes; such metadata has at most {most:,}")
        if name == "zarr.json" and size:
            return  # of the version that Zarr prefers


def _check_plain(path: str, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise DataError(
            f"{path} is a symbolic link: inside a dataset none is followed, since it may lead anywhere; copy the "
            f"dataset with its links resolved (cp -RL)"
        )
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError(f"{path} is neither a file nor a directory")


def _check_stored(array: Any, uri: str) -> None:
    """Hold what the array claims against the files that are there."""
    item = array.metadata.dtype.to_native_dtype().itemsize
    encoded = item * prod(array.shards or array.chunks)
    largest = max(2 * encoded + 16 * _count(array.shards or array.chunks, array.chunks), _SMALL)
    claimed, stored = item * prod(array.shape), 0
    if not store.is_local(uri) and claimed <= _SMALL:
        return  # a listing of a remote store costs more than it can save
    listed = False
    for path, size in _files(uri):
        listed, stored = True, stored + size
        if size > largest:
            raise DataError(f"{path} has {size:,} bytes, a chunk of {uri} decodes to {encoded:,}; it is not credible")
    if listed and claimed > _SMALL + _DENSEST * stored:
        raise DataError(
            f"{uri} claims {claimed:.3g} bytes of {array.metadata.dtype.to_native_dtype()}{list(array.shape)}, but "
            f"only {stored:,} are stored; its metadata is not credible"
        )


def _files(uri: str) -> Iterator[tuple[str, int]]:
    """Yield all files below a directory with their sizes; what cannot be listed has none."""
    if not store.is_local(uri):
        files, path = open_storage(uri)
        try:
            found = files.find(path, detail=True)
        except (OSError, NotImplementedError):
            return
        yield from ((name, int(info.get("size") or 0)) for name, info in found.items())
        return
    waiting = [uri]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                _check_plain(entry.path, found.st_mode)
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(entry.path)
                else:
                    yield entry.path, found.st_size


def missing_shards(array: Any, uri: str) -> list[str]:
    """Return the keys of shards (or chunks) that should be there and are not, or are empty: Zarr reads zeros then."""
    stored = array.shards or array.chunks
    grid = tuple(-(-size // step) for size, step in zip(array.shape, stored, strict=True))
    if prod(grid) > MOST_CHUNKS:
        raise DataError(f"{uri} claims {prod(grid)} chunks; its metadata is broken")
    keys = [array.metadata.encode_chunk_key(place) for place in np.ndindex(*grid)]
    return [key for key in keys if not store.size(store.join(uri, key))]
