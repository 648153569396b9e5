"""What a fit may have left behind: processes, threads, sockets, temporary directories, shared memory."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Collection
from pathlib import Path

import psutil

__all__ = ["Leftovers", "stopped_processes"]


def stopped_processes() -> list[psutil.Process]:
    """Return the stopped ones (SIGSTOP) among this process's descendants."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() == psutil.STATUS_STOPPED:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _here(processes: bool) -> dict[str, object]:
    me = psutil.Process()
    found: dict[str, object] = {
        "threads": sorted(one.name for one in threading.enumerate() if one.name.startswith("strombus")),
        "listening sockets": sum(one.status == psutil.CONN_LISTEN for one in me.net_connections("inet")),
        "temporary directories": sorted(path.name for path in Path(tempfile.gettempdir()).glob("strombus-*")),
        "shared memory": len(list(Path("/dev/shm").glob(f"*-{os.getpid()}-*"))),
        "stopped processes": [one.pid for one in stopped_processes()],
    }
    if processes:
        found["processes"] = len(me.children(recursive=True))
    return found


class Leftovers:
    """What is there before something, to be compared with what is there afterwards.

    Parameters
    ----------
    processes : bool
        Whether the number of this process's descendants counts too: Spark keeps idle ones of its own accord.
    """

    def __init__(self, processes: bool = True) -> None:
        self._processes = processes
        self._before = _here(processes)

    def check(self, within: float = 15.0, apart_from: Collection[str] = ()) -> None:
        """Wait until there is no more than before, `apart_from` some kinds; fail with what there is."""
        deadline = time.monotonic() + within
        while more := {what: counts for what, counts in self._more().items() if what not in apart_from}:
            assert time.monotonic() < deadline, f"left behind after {within:g} s: {more}"
            time.sleep(0.1)

    def _more(self) -> dict[str, object]:
        now = _here(self._processes)
        return {what: (self._before[what], there) for what, there in now.items() if _exceeds(there, self._before[what])}


def _exceeds(there: object, before: object) -> bool:
    if isinstance(there, int) and isinstance(before, int):
        return there > before
    return there != before
