"""The directory of one run: what it was asked to do, what it measured, what came of it."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from strombus.documents import parse_json
from strombus.errors import ConfigurationError, RunError, hide_credentials
from strombus.files import join, normalise, read_whole, write_whole
from strombus.runs.lease import Lease

__all__ = ["CONFIG", "METRICS", "RESULT", "FinishedRun", "Run", "open_run", "path_of", "plain", "read_result"]

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
STORAGE = "strombus-runs"
"""Where runs lie by default, in the working directory."""

_LARGEST = 1 << 26
"""Bytes of a record."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class Run:
    """A run directory that this process may write to.

    ``config.json`` comes first and ``result.json`` last, each in one piece: a directory without the latter is one
    whose run has not ended.

    Parameters
    ----------
    name, path : str
        The path is absolute, or a URI.
    lease : Lease
        Held as long as the run is open.
    """

    def __init__(self, name: str, path: str, lease: Lease) -> None:
        self.name, self.path = name, path
        self._lease = lease

    def check(self) -> None:
        """Raise RunError when another process has taken the run over."""
        self._lease.check()

    def file(self, *names: str) -> str:
        """Return the path of a file in the directory."""
        return join(self.path, *names)

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a record as JSON, in one piece; figures that are not finite become null."""
        self.check()
        write_whole(self.file(name), (json.dumps(plain(record), indent=2, allow_nan=False) + "\n").encode())

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a record; None where there is none."""
        return _read(self.file(name))


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended: its directory, and the records ``result.json`` and ``config.json``."""

    path: str
    result: Mapping[str, Any]
    config: Mapping[str, Any]

    def read(self, name: str) -> dict[str, Any] | None:
        """Return another record of the directory; None where there is none."""
        return _read(join(self.path, name))


@contextmanager
def open_run(
    name: str, storage_path: str | os.PathLike[str] | None = None, lease_seconds: float = 30.0
) -> Iterator[Run]:
    """Open a run directory ``storage_path/name``, a new one or one whose run has not ended, for a ``with`` block.

    Parameters
    ----------
    name : str
        Letters, digits, ``.``, ``_`` and ``-``.
    storage_path : path or URI, optional
        ``strombus-runs`` in the working directory by default.
    lease_seconds : float
        How long a run that another process has left without a word counts as in use.

    Raises
    ------
    ConfigurationError
        For a name that cannot be one of a directory.
    RunError
        When the run has ended, or is in use.
    """
    path = path_of(name, storage_path)
    what = f"the run {name!r} in {path}"
    with Lease(join(path, "lease.json"), what, lease_seconds) as lease:
        if _read(join(path, RESULT)) is not None:
            raise RunError(f"{what} has ended, its result is in {RESULT}; take another name, or remove the directory")
        yield Run(name, path, lease)


def read_result(name: str, storage_path: str | os.PathLike[str] | None = None) -> FinishedRun | None:
    """Return what a run came to; None when it has not ended, or never began."""
    path = path_of(name, storage_path)
    result = _read(join(path, RESULT))
    return None if result is None else FinishedRun(path, result, _read(join(path, CONFIG)) or {})


def path_of(name: str, storage_path: str | os.PathLike[str] | None) -> str:
    """Return where a run lies: an absolute path, or a URI."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"name must be of letters, digits, '.', '_' and '-', got {name!r}")
    return join(normalise(STORAGE if storage_path is None else storage_path), name)


def _read(path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = parse_json(read_whole(path, _LARGEST), _LARGEST)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} holds a {type(found).__name__}, wanted a record")
    return found


def plain(value: Any) -> Any:
    """Return `value` as JSON has it: mappings, lists, texts and finite numbers; what is none of them becomes text.

    Credentials in URIs are left out.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if getattr(value, "shape", None) == ():  # NumPy's and torch's numbers
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int):
        return value
    return hide_credentials(str(value))
