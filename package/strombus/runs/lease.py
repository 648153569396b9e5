"""A lock in a file that its holder has to renew: one left behind by a process that was killed runs out."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from typing import Any, Self

from strombus.documents import parse_json
from strombus.errors import RunError, hide_credentials
from strombus.files import is_local, open_storage, read_whole, write_whole

__all__ = ["Lease"]

logger = logging.getLogger(__name__)

_LARGEST = 1 << 16
"""Bytes of the file."""

_SETTLE = 0.5
"""Seconds after which whoever else wrote the file at the same time has done so."""


class Lease:
    """The right to write at one place, held for the time of a ``with`` block.

    No clocks are compared: who finds the file watches whether it changes. One that does not for `seconds` was left
    behind and is taken over; one of a process of this machine that has ended, at once. A holder that was away for
    longer finds another's mark in it, and has lost the lease.

    Parameters
    ----------
    uri : str
        The file, a local path or a URI.
    what : str
        What it guards, for errors.
    seconds : float
        How long a lease lives without being renewed; it is renewed six times as often.

    Raises
    ------
    RunError
        When another process holds it; says which.
    """

    def __init__(self, uri: str, what: str, seconds: float = 30.0) -> None:
        self._uri, self._what, self._seconds = uri, hide_credentials(what), seconds
        self._mark = uuid.uuid4().hex
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._count = 0
        self._taken_by: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="strombus-lease", daemon=True)

    def check(self) -> None:
        """Raise RunError if another process has taken the lease over."""
        if self._taken_by is not None:
            raise RunError(
                f"{self._what} was taken over by {self._taken_by}, since this process did not renew its lease "
                f"({self._uri}) for {self._seconds:g} s; was it suspended?"
            )

    def __enter__(self) -> Self:
        if not self._create():
            self._take_over()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(self._seconds)
        if self._read().get("mark") == self._mark:
            files, path = open_storage(self._uri)
            files.rm(path)

    def _create(self) -> bool:
        """Make the file if it does not exist; only local file systems can say so for sure."""
        if not is_local(self._uri):
            return False
        os.makedirs(os.path.dirname(self._uri), exist_ok=True)
        try:
            with open(self._uri, "xb") as file:
                file.write(self._content())
        except FileExistsError:
            return False
        return True

    def _take_over(self) -> None:
        """Wait until the holder has shown that it lives, or has had the time to; then write, and see who wrote last."""
        found = self._read()
        if _has_ended(found.get("process")):
            found = {}
        deadline = time.monotonic() + self._seconds
        if found:
            logger.info("%s: watching for %g s whether %s still holds it", self._what, self._seconds, _holder(found))
        while found and time.monotonic() < deadline:
            time.sleep(self._seconds / 20)
            now = self._read()
            if now and now != found:
                self._refuse(now)
            found = now
        write_whole(self._uri, self._content())
        time.sleep(min(_SETTLE, self._seconds))
        if (now := self._read()).get("mark") != self._mark:
            self._refuse(now)

    def _refuse(self, found: dict[str, Any]) -> None:
        raise RunError(f"{self._what} is in use by {_holder(found)}; take another name, or wait until it has ended")

    def _content(self) -> bytes:
        record = {"holder": self._holder, "process": _process(), "mark": self._mark, "count": self._count}
        return json.dumps(record).encode()

    def _read(self) -> dict[str, Any]:
        """Return what the file says; nothing where there is none."""
        open_storage(self._uri)[0].invalidate_cache()
        try:
            found = parse_json(read_whole(self._uri, _LARGEST), _LARGEST)
        except FileNotFoundError:
            return {}
        except ValueError:  # just being written
            return {"holder": "another process"}
        return found if isinstance(found, dict) else {}

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / 6):
            try:
                found = self._read()
                if found and found.get("mark") != self._mark:
                    self._taken_by = _holder(found)
                    return
                self._count += 1
                write_whole(self._uri, self._content())
            except OSError as error:
                logger.warning("%s: the lease could not be renewed: %s", self._what, hide_credentials(str(error)))


def _holder(found: dict[str, Any]) -> str:
    return str(found.get("holder", "another process"))


def _process(pid: int | None = None) -> list[Any] | None:
    """Return what tells a process of this machine from all others; None where the system does not say."""
    pid = os.getpid() if pid is None else pid
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            started = file.read().rpartition(")")[2].split()[19]
        return [boot, os.readlink("/proc/self/ns/pid"), pid, started]
    except (OSError, IndexError):
        return None


def _has_ended(process: Any) -> bool:
    """Say whether a process is known to have ended: one of this boot and these process numbers that is not there."""
    mine = _process()
    if mine is None or not isinstance(process, list) or process[:2] != mine[:2] or len(process) != len(mine):
        return False
    return type(process[2]) is int and process[2] > 0 and _process(process[2]) != process
