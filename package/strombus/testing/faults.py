"""Faults to inject: processes that die under a task or a gang, members of shared training, the loss of a package."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, NoReturn
from unittest import mock

from strombus.executors.base import Executor, Member
from strombus.testing.executor_tasks import wait_for_stop
from strombus.transport import Message, Seat, Transport, TransportOptions, make_transport
from strombus.transport.base import Payload
from strombus.worker import meeting
from strombus.worker.peers import Kind

__all__ = ["Fault", "block_import", "die_in_gang", "die_once", "die_under", "inject", "kill_process"]


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


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@dataclass(frozen=True)
class Fault:
    """What happens to one member of a gang that shares training, and when.

    Parameters
    ----------
    rank : int
    phase : str
        "start", "address" and "connect": before the members meet, after their exchange; the name of a
        `strombus.worker.peers.Kind`: when the member sends such a message; "result": when it has done all.
    action : {"kill", "kill_engine", "stop", "hang", "raise", "garbage"}
        Its process gets SIGKILL or SIGSTOP, or the process of its engine that started it (Spark's JVM) gets SIGKILL; it
        works for ever, it raises, or what it sends is damaged.
    step : int
        The first step whose update counts as reaching "UPDATE".
    """

    rank: int
    phase: str
    action: Literal["kill", "kill_engine", "stop", "hang", "raise", "garbage"]
    step: int = 3

    def reach(self, phase: str, step: int | None = None, payload: Payload = b"") -> Payload:
        """Return the payload, unless this is the moment."""
        if phase != self.phase or (step is not None and phase == Kind.UPDATE.name and step < self.step):
            return payload
        if self.action == "kill":
            die()
        if self.action == "kill_engine":
            os.kill(_parent(os.getppid()), signal.SIGKILL)
        if self.action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.action == "hang":
            while True:
                time.sleep(0.05)
        if self.action == "raise":
            raise RuntimeError("broken on purpose")
        if self.action != "garbage":  # the process outlives its engine by a moment
            return payload
        return bytes(byte ^ 0x5A for byte in bytes(payload))


@contextmanager
def inject(executor: Executor, fault: Fault, gangs: int | None = None) -> Iterator[None]:
    """Have gangs of `executor` that share training suffer `fault`: the first `gangs` of them, by default all."""
    gang, left = executor.gang, count() if gangs is None else iter(range(gangs))

    def faulty(body: Callable[..., Any], payloads: Sequence[Any], *arguments: Any, **options: Any) -> list[Any]:
        if next(left, None) is None:
            return gang(body, payloads, *arguments, **options)
        return gang(partial(_suffer, fault, body), payloads, *arguments, **options)

    with mock.patch.object(executor, "gang", faulty):
        yield


def _suffer(fault: Fault, body: Callable[..., Any], member: Member, shared: Any, payload: Any) -> Any:
    if member.rank != fault.rank:
        return body(member, shared, payload)

    def make(name: str, seat: Seat, options: TransportOptions) -> Transport:
        return _FaultyTransport(make_transport(name, seat, options), fault)

    fault.reach("start")
    with mock.patch.object(meeting, "make_transport", make):
        result = body(member, shared, payload)
    fault.reach("result")
    return result


class _FaultyTransport(Transport):
    """Another transport, until the fault's moment."""

    def __init__(self, inner: Transport, fault: Fault) -> None:
        super().__init__(inner.seat, inner.options)
        self._inner, self._fault = inner, fault

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "stopping" and "_inner" in vars(self):
            self._inner.stopping = value

    def address(self) -> bytes:
        self._fault.reach("address")
        return self._inner.address()

    def connect(self, addresses: Sequence[bytes]) -> None:
        self._fault.reach("connect")
        self._inner.connect(addresses)

    def send(self, kind: int, step: int, payload: Payload, *, to: int | None = None) -> None:
        self._inner.send(kind, step, self._fault.reach(Kind(kind).name, step, payload), to=to)

    def receive(self, timeout: float = 0.0) -> list[Message]:
        return self._inner.receive(timeout)

    def close(self, flush: float = 5.0) -> None:
        self._inner.close(flush)


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
