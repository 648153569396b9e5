"""Arrays in NumPy's ``.npz`` files, read without pickle and without being filled by a small file."""

from __future__ import annotations

from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from strombus.errors import DataError

__all__ = ["read_npz"]

_SMALL = 64 << 20
"""Bytes of arrays that are read whatever the file has."""

_DENSEST = 300
"""Bytes that one byte of a larger file may stand for; deflate makes at most 1032 of one, of equal values."""


def read_npz(file: str | IO[bytes], name: str) -> dict[str, Any]:
    """Return the arrays of a file.

    Parameters
    ----------
    file : str or binary file
    name : str
        What an error calls it.

    Raises
    ------
    OSError
        When it cannot be opened.
    DataError
        When it is no ``.npz`` file, is damaged, holds objects, or stands for far more bytes than it has.
    """
    try:
        with ZipFile(file) as archive:
            members = archive.infolist()
        size, stored = sum(one.file_size for one in members), sum(one.compress_size for one in members)
        if size > _SMALL + _DENSEST * stored:
            raise DataError(f"{name} has {stored:,} bytes and claims {size:,}: that is not credible")
        if not isinstance(file, str):
            file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, EOFError, MemoryError, OverflowError, NotImplementedError) as error:
        raise DataError(f"{name} is damaged, or no .npz file: {type(error).__name__}: {str(error)[:500]}") from error
    except BadZipFile as error:
        raise DataError(f"{name} is no .npz file: {error}") from None
