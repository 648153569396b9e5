"""Faults to inject: processes that die under a task or a gang, and the loss of a package."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

from strombus.executors.base import Member
from strombus.testing.executor_tasks import wait_for_stop

__all__ = ["block_import", "die_in_gang", "die_once", "die_under", "kill_process"]


def kill_process(pid: int, timeout: float = 10.0) -> None:
    """Send SIGKILL to a process and wait until it is gone (or only awaits its parent).

    Raises
    ------
    TimeoutError
        When it still runs after `timeout` seconds.
    """
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + timeout
    while _runs(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} still runs {timeout:g} s after SIGKILL")
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def die() -> NoReturn:
    """Kill this process as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def die_once(marker: str, part: Any) -> Any:
    """Return the part; the first task that finds no file `marker` makes it and takes its process down."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return part
    die()


def die_under(number: int, part: int) -> int:
    """Take the process down whenever this part comes."""
    if part == number:
        die()
    return part


def die_in_gang(member: Member, rank: int, limit: float) -> bool:
    """Meet the others; then one member's process dies, the others work until told to stop."""
    member.exchange(b"")
    if member.rank == rank:
        die()
    return wait_for_stop(member, None, limit)


def block_import(package: str, folder: Path) -> Path:
    """Write into `folder` what keeps a Python with this ``PYTHONPATH`` from importing `package`."""
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    return folder
