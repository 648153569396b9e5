"""Files as RDDs, and RDDs as text files; on whatever storage fsspec knows and all workers reach."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import fsspec

from strombus.errors import ConfigurationError, DataError, MissingDataError
from strombus.files import open_storage

__all__ = ["Span", "cut_files", "find_files", "group_files", "read_span", "read_whole", "save", "write_lines"]

LARGEST = 32 << 20
"""Bytes of text in one partition, about; that of Spark on a local disk."""
SLOP = 1.1
"""A rest up to so many times a partition's size stays with it."""
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
"""Files that can be read from their beginning alone."""


class Span(NamedTuple):
    """The lines of a file that begin after `start` and up to `stop`, and for ``start=0`` the first one."""

    uri: str
    start: int
    stop: int | None


def find_files(path: str) -> list[tuple[str, int]]:
    """Return (URI, bytes) of the files that `path` stands for, in the order of their names.

    Parameters
    ----------
    path : str
        Files, directories or patterns, separated by commas. Names that begin with ``_`` or ``.`` are skipped in
        directories and patterns.

    Raises
    ------
    MissingDataError
        When there is nothing at one of them.
    """
    found: list[tuple[str, int]] = []
    for one in path.split(","):
        system, root = open_storage(one)
        matches = sorted(system.glob(root)) if _is_pattern(root) else [root]
        known = [match for match in matches if system.exists(match)]
        if not known:
            raise MissingDataError(f"there is no file or directory at {one}")
        for match in known:
            names = _listed(system, match) if system.isdir(match) else [match]
            found += [(system.unstrip_protocol(name), int(system.size(name))) for name in names]
    return found


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _listed(system: Any, folder: str) -> list[str]:
    entries = system.ls(folder, detail=True)
    names = (entry["name"] for entry in entries if entry["type"] == "file")
    return sorted(name for name in names if not posixpath.basename(name).startswith(("_", ".")))


def cut_files(files: Sequence[tuple[str, int]], parts: int) -> list[Span]:
    """Cut text files into about `parts` spans, as Hadoop does."""
    total = sum(size for _, size in files)
    goal = max(1, min(total // max(parts, 1), LARGEST))
    spans: list[Span] = []
    for uri, size in files:
        if uri.endswith(PACKED) or not size:
            spans.append(Span(uri, 0, None))
            continue
        start = 0
        while (size - start) / goal > SLOP:
            spans.append(Span(uri, start, start + goal))
            start += goal
        if start < size:
            spans.append(Span(uri, start, size))
    return spans


def read_span(spans: Sequence[Span], unicode: bool, index: int) -> Iterator[Any]:
    """Yield the lines of span `index`, without their ends."""
    uri, start, stop = spans[index]
    with fsspec.open(uri, "rb", compression="infer") as file:
        position = start
        if start:
            file.seek(start)
            position += len(file.readline())  # it began before, or right at the end of, the span before
        while stop is None or position <= stop:
            line = file.readline()
            if not line:
                return
            position += len(line)
            text = line.removesuffix(b"\n").removesuffix(b"\r")
            yield text.decode() if unicode else text


def group_files(files: Sequence[tuple[str, int]], parts: int) -> list[list[str]]:
    """Deal whole files out to at most `parts` groups, neighbours together."""
    size = min(max(parts, 1), len(files))
    return [[uri for uri, _ in files[i * len(files) // size : (i + 1) * len(files) // size]] for i in range(size)]


def read_whole(groups: Sequence[Sequence[str]], text: bool, index: int) -> Iterator[tuple[str, Any]]:
    """Yield (URI, content) of the files of a group; a local file's URI is ``file:/...``, as in Spark."""
    for uri in groups[index]:
        with fsspec.open(uri, "rb", compression="infer" if text else None) as file:
            content = file.read()
        yield uri.replace("file:///", "file:/", 1), content.decode() if text else content


def save(path: str, write: Callable[[str], None]) -> None:
    """Have the partitions written, then say so by an empty file ``_SUCCESS``.

    Raises
    ------
    DataError
        When there is something at `path`.
    """
    if not isinstance(path, str) or not path:
        raise ConfigurationError(f"saveAsTextFile needs a path or URI, got {path!r}")
    system, root = open_storage(path)
    if system.exists(root):
        raise DataError(f"{path} exists already; give another path, or remove it first")
    system.makedirs(root, exist_ok=True)
    write(system.unstrip_protocol(root))
    temporary = posixpath.join(root, "_temporary")
    if system.exists(temporary):  # of a task that ran twice
        system.rm(temporary, recursive=True)
    system.pipe_file(posixpath.join(root, "_SUCCESS"), b"")


def write_lines(target: str, index: int, records: Iterable[Any]) -> Iterable[Any]:
    """Write a partition under a name of this attempt, and give it its own name when it is complete."""
    system, root = open_storage(target)
    draft = posixpath.join(root, "_temporary", uuid.uuid4().hex)
    system.makedirs(posixpath.dirname(draft), exist_ok=True)
    with system.open(draft, "wb") as file:
        for record in records:
            line = record if isinstance(record, bytes) else str(record).encode()
            file.write(line + b"\n")
    system.mv(draft, posixpath.join(root, f"part-{index:05d}"))
    return ()
