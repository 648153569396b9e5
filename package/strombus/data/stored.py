"""Files as their storage lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fsspec import AbstractFileSystem

from strombus.errors import DataError, MissingDataError
from strombus.files import open_storage

__all__ = ["THREADS", "StoredFile", "look_at", "natural_order", "stored_file"]

THREADS = 16
"""Threads that look for files, and into them; they wait for the storage."""

_VERSIONS = ("mtime", "ETag", "LastModified", "last_modified", "modificationTime", "updated", "created")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file; `version` changes with its content, as far as the storage can tell."""

    uri: str
    size: int
    version: str = ""


def look_at(uri: str) -> tuple[AbstractFileSystem, str, dict[str, Any]]:
    """Return the file system, the path on it, and what it tells of what is there; MissingDataError for nothing."""
    files, path = open_storage(uri)
    try:
        return files, path, files.info(path)
    except FileNotFoundError:
        raise MissingDataError(f"no data at {uri}: neither a file nor a directory; check the path") from None


def stored_file(uri: str, info: dict[str, Any]) -> StoredFile:
    """Take what fsspec tells of a file; DataError where it is none."""
    if info["type"] != "file":
        raise DataError(f"{uri} is no regular file")
    return StoredFile(uri, int(info.get("size") or 0), next((str(info[key]) for key in _VERSIONS if key in info), ""))


def natural_order(name: str) -> list[tuple[int, str]]:
    """Order names by the numbers in them: dataset_0_9 before dataset_0_10."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name) if piece]
