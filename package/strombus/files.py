"""Files at local paths and fsspec URIs."""

from __future__ import annotations

import os
import posixpath
import uuid
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

__all__ = ["is_local", "join", "normalise", "write_whole"]


def normalise(path: str | os.PathLike[str]) -> str:
    """Return an absolute local path, or the URI, without a trailing slash: workers have other working directories."""
    text = os.fspath(path)
    if text.startswith("file:"):
        text = unquote(urlsplit(text).path)
    return os.path.abspath(text) if is_local(text) else text.rstrip("/")


def is_local(uri: str) -> bool:
    """Say whether `uri` is a path of this machine's file system."""
    return "://" not in uri and "::" not in uri


def join(uri: str, *names: str) -> str:
    """Append names to a path or URI."""
    return "/".join([uri.rstrip("/"), *names])


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file in one piece, making its directory: a reader sees all of it or the one before.

    It is written under another name beside the target, then renamed.
    """
    files, target = fsspec.core.url_to_fs(os.fspath(path))
    folder, name = posixpath.split(target)
    temporary = posixpath.join(folder, f".{name}.{uuid.uuid4().hex[:8]}")
    if folder:
        files.makedirs(folder, exist_ok=True)
    try:
        with files.open(temporary, "wb") as stream:
            stream.write(data)
            if isinstance(files, LocalFileSystem):
                stream.flush()
                os.fsync(stream.fileno())
        if isinstance(files, LocalFileSystem):
            os.replace(temporary, target)
        else:
            files.mv(temporary, target)
    except BaseException:
        if files.exists(temporary):
            files.rm(temporary)
        raise
