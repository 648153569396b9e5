"""Checkpoints in a run directory: whole ones, or none."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from strombus.errors import DataError, RunError
from strombus.files import join, open_storage, write_whole

__all__ = ["Checkpoint", "CheckpointStore", "Draft", "digest"]

logger = logging.getLogger(__name__)

FORMAT = 1
MANIFEST, STATE = "manifest.json", "state.json"

_FOLDER = re.compile(r"step-(\d{1,18})")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LARGEST_RECORD = 1 << 26
"""Bytes of JSON that are read at most."""
_PIECE = 1 << 22


@dataclass(frozen=True, slots=True)
class _Entry:
    size: int
    sha256: str


def digest(data: bytes) -> dict[str, Any]:
    """Return size and hash of a file's content, as a manifest lists them."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@dataclass(frozen=True)
class Checkpoint:
    """One that is whole: its files were found to be as the manifest lists them.

    Parameters
    ----------
    path : str
        Its directory.
    step : int
        The network's iteration.
    state : mapping
        The record ``state.json``.
    files : mapping of str to int
        Bytes of each file.
    """

    path: str
    step: int
    state: Mapping[str, Any]
    files: Mapping[str, int]

    def file(self, name: str) -> str:
        """Return the path of one of its files; DataError when it has none of that name."""
        if name not in self.files:
            raise DataError(f"the checkpoint {self.path} has no file {name}; it has {', '.join(sorted(self.files))}")
        return join(self.path, name)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        files, target = open_storage(self.file(name))
        return bytes(files.cat_file(target))


@dataclass
class Draft:
    """A checkpoint that is being written; `finish` makes it one.

    Parameters
    ----------
    path : str
    step : int
    """

    path: str
    step: int
    _files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, name: str, data: bytes) -> None:
        """Write a file in one piece."""
        write_whole(join(self.path, name), data)
        self._files[name] = digest(data)

    def add(self, name: str, entry: Mapping[str, Any]) -> None:
        """List a file that another process has written; `entry` is its `digest`."""
        self._files[name] = dict(entry)

    def finish(self, state: Mapping[str, Any]) -> None:
        """Write ``state.json``, and last of all the manifest."""
        self.write(STATE, json.dumps(state, allow_nan=False).encode())
        manifest = {"format": FORMAT, "step": self.step, "files": self._files}
        write_whole(join(self.path, MANIFEST), json.dumps(manifest, indent=2).encode())


class CheckpointStore:
    """The checkpoints of one run, as directories ``step-N``.

    Parameters
    ----------
    path : str
        The run directory, a local path or a URI.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def begin(self, step: int) -> Draft:
        """Start a checkpoint; one of the same step that was there before counts no longer."""
        folder = self.folder(step)
        files, target = open_storage(join(folder, MANIFEST))
        if files.exists(target):
            files.rm(target)
        return Draft(folder, step)

    def folder(self, step: int) -> str:
        """Return the directory of the checkpoint of a step."""
        return join(self._path, f"step-{step}")

    def steps(self) -> list[int]:
        """Return the steps of which there are directories, whole or not, in ascending order."""
        files, target = open_storage(self._path)
        files.invalidate_cache()
        if not files.isdir(target):
            return []
        found = (_FOLDER.fullmatch(entry.rstrip("/").rsplit("/", 1)[-1]) for entry in files.ls(target, detail=False))
        return sorted(int(match[1]) for match in found if match)

    def whole(self) -> Iterator[Checkpoint]:
        """Yield the checkpoints that are whole, the latest first; say of the others what is wrong with them.

        Raises
        ------
        RunError
            After the last one, when some could not be read: nothing says that they are damaged.
        """
        unread: OSError | None = None
        for step in reversed(self.steps()):
            try:
                found = self.open(step)
            except (DataError, OSError) as error:
                logger.warning("the checkpoint of step %d is passed over: %s", step, error)
                unread = unread if isinstance(error, DataError) else error
            else:
                yield found
        if unread is not None:
            raise RunError(f"checkpoints in {self._path} cannot be read: {unread}; try again") from unread

    def open(self, step: int) -> Checkpoint:
        """Check a checkpoint's files and return it.

        Raises
        ------
        DataError
            When it was never finished, or a file is not as the manifest lists it.
        """
        path = self.folder(step)
        entries = _read_manifest(path, step)
        for name, entry in entries.items():
            _check(join(path, name), entry)
        state = _read_json(join(path, STATE))
        return Checkpoint(path, step, state, {name: entry.size for name, entry in entries.items()})

    def remove(self, step: int) -> None:
        """Remove a checkpoint, its manifest first: half of one never passes for a whole."""
        files, target = open_storage(self.folder(step))
        manifest = join(target, MANIFEST)
        if files.exists(manifest):
            files.rm(manifest)
        if files.exists(target):
            files.rm(target, recursive=True)


def _read_manifest(path: str, step: int) -> dict[str, _Entry]:
    manifest = _read_json(join(path, MANIFEST))
    if manifest.get("format") != FORMAT or manifest.get("step") != step:
        raise DataError(
            f"{path} is of format {manifest.get('format')!r} and step {manifest.get('step')!r}; this version reads "
            f"format {FORMAT}"
        )
    listed = manifest.get("files")
    if not isinstance(listed, dict) or STATE not in listed:
        raise DataError(f"{path}/{MANIFEST} lists no files, or no {STATE}")
    entries = {}
    for name, values in listed.items():
        if not _FILE.fullmatch(name) or name == MANIFEST:
            raise DataError(f"{path}/{MANIFEST} lists a file {name!r}, which is no name of one")
        size, sha256 = (values.get("bytes"), values.get("sha256")) if isinstance(values, dict) else (None, None)
        if type(size) is not int or size < 0 or not isinstance(sha256, str):
            raise DataError(f"{path}/{MANIFEST} does not say how large {name} is, or its hash")
        entries[name] = _Entry(size, sha256)
    return entries


def _read_json(path: str) -> dict[str, Any]:
    with _open(path) as (stream, size):
        if size > _LARGEST_RECORD:
            raise DataError(f"{path} is larger than {_LARGEST_RECORD >> 20} MiB, which no record of a checkpoint is")
        data = stream.read(_LARGEST_RECORD)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, wanted a record")
    return found


def _check(path: str, entry: _Entry) -> None:
    """Raise DataError unless a file is as listed; it is read in pieces."""
    found = hashlib.sha256()
    with _open(path) as (stream, size):
        if size == entry.size:
            while piece := stream.read(_PIECE):
                found.update(piece)
    if size != entry.size or found.hexdigest() != entry.sha256:
        raise DataError(f"{path} is damaged: its {size} bytes are not the {entry.size} that were written")


@contextmanager
def _open(path: str) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file and say how long it is; DataError where there is none, or something that is no file."""
    files, target = open_storage(path)
    try:
        about = files.info(target)
        if about["type"] != "file":
            raise DataError(f"{path} is no file")
        with files.open(target, "rb") as stream:
            yield stream, about["size"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"there is no {path}: it was removed, or never finished") from error
