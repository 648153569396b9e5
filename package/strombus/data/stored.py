"""Files as their storage lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from strombus.errors import DataError

__all__ = ["THREADS", "StoredFile", "natural_order", "stored_file"]

THREADS = 16
"""Threads that look for files, and into them; they wait for the storage."""

_VERSIONS = ("mtime", "ETag", "LastModified", "last_modified", "modificationTime", "updated", "created")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file; `version` changes with its content, as far as the storage can tell."""

    uri: str
    size: int
    version: str = ""


def stored_file(uri: str, info: dict[str, Any]) -> StoredFile:
    """Take what fsspec tells of a file; DataError where it is none."""
    if info["type"] != "file":
        raise DataError(f"{uri} is no regular file")
    return StoredFile(uri, int(info.get("size") or 0), next((str(info[key]) for key in _VERSIONS if key in info), ""))


def natural_order(name: str) -> list[tuple[int, str]]:
    """Order names by the numbers in them: dataset_0_9 before dataset_0_10."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name) if piece]
