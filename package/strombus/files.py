"""Files at local paths and fsspec URIs."""

from __future__ import annotations

import os
import posixpath
import uuid
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from strombus.errors import ConfigurationError, DataError, hide_credentials

__all__ = ["is_local", "join", "normalise", "open_storage", "read_start", "read_whole", "write_whole"]


_NEEDS = {
    "hdfs": "Hadoop's client: pyarrow, and JAVA_HOME, HADOOP_HOME and CLASSPATH (`hadoop classpath --glob`) in the "
    "environment of every process; or take a webhdfs:// URI, which needs none of them",
    "s3": "the package s3fs",
    "gs": "the package gcsfs",
    "abfs": "the package adlfs",
}
"""What a protocol needs besides fsspec."""


def normalise(path: str | os.PathLike[str]) -> str:
    """Return an absolute local path, or the URI, without a trailing slash: workers have other working directories."""
    text = os.fspath(path)
    if text.startswith(("file:", "local:")):
        text = unquote(urlsplit(text).path)
    return os.path.abspath(text) if is_local(text) else text.rstrip("/")


def is_local(uri: str) -> bool:
    """Say whether `uri` is a path of this machine's file system."""
    return "://" not in uri and "::" not in uri


def join(uri: str, *names: str) -> str:
    """Append names to a path or URI."""
    return "/".join([uri.rstrip("/"), *names])


def open_storage(path: str | os.PathLike[str]) -> tuple[AbstractFileSystem, str]:
    """Return the file system that a path or URI is on, and its name there.

    Raises
    ------
    ConfigurationError
        When the file system cannot be used here: names what it needs.
    """
    text = os.fspath(path)
    try:
        files, target = fsspec.core.url_to_fs(text)
    except (ImportError, OSError, ValueError) as error:
        protocol = text.partition("://")[0].partition("::")[0]
        needs = f"; {protocol}:// needs {_NEEDS[protocol]}" if protocol in _NEEDS else ""
        raise ConfigurationError(f"{hide_credentials(text)} cannot be opened ({error}){needs}") from error
    return files, target


def read_whole(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the content of a file that has at most `most` bytes.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        When there is no file.
    DataError
        When it is larger, or no regular file: a pipe or a device has no end.
    """
    files, target = open_storage(path)
    if isinstance(files, LocalFileSystem) and os.path.exists(target) and not os.path.isfile(target):
        if os.path.isdir(target):
            raise IsADirectoryError(f"{path} is a directory")
        raise DataError(f"{path} is no regular file")
    with files.open(target, "rb") as stream:
        found = bytes(stream.read(most + 1))
    if len(found) > most:
        raise DataError(f"{path} has more than {most:,} bytes, which is more than such a file can have")
    return found


def read_start(path: str | os.PathLike[str], length: int) -> tuple[bytes, int]:
    """Return up to `length` bytes from the start of a file, and how many it has."""
    files, target = open_storage(path)
    with files.open(target, "rb") as stream:
        return bytes(stream.read(length)), int(files.size(target) or 0)


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file in one piece, making its directory: a reader sees all of it or the one before.

    It is written under another name beside the target, then renamed.
    """
    files, target = open_storage(path)
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
