"""Faults to inject: processes that die, hang or send garbage under a task or a gang, and the loss of a package."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, NoReturn
from unittest import mock

from strombus.executors.base import Executor, Member
from strombus.executors.calls import trains
from strombus.testing.executor_tasks import wait_for_stop
from strombus.testing.links import LinkFaults, faulty
from strombus.transport import Message, Seat, Transport, TransportOptions, make_transport, transports
from strombus.transport.base import Payload
from strombus.worker import averaging, meeting
from strombus.worker.peers import Kind
from strombus.worker.saving import Saver
from strombus.worker.step import run_steps

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


def _wait_for_ever() -> NoReturn:
    while True:
        time.sleep(0.05)


def _break() -> NoReturn:
    raise RuntimeError("broken on purpose")


def _pause(seconds: float) -> None:
    """Stop this process, and have another one, which is nobody's child soon, wake it."""
    wake = f"(sleep {seconds}; kill -CONT {os.getpid()}) > /dev/null 2>&1 &"
    subprocess.run(["sh", "-c", wake], check=True)
    _stop()


def _stop() -> None:
    """Stop this process here: sent to the process, the signal may wait for another of its threads to wake up."""
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


Action = Literal["kill", "kill_engine", "stop", "pause", "slow", "hang", "raise", "garbage", "cut", "flip"]


@dataclass(frozen=True)
class Fault:
    """What happens to one worker, and when.

    Parameters
    ----------
    rank : int
    phase : str
        Of a gang that shares training: "start", "address" and "connect": before the members meet, after their exchange;
        the name of a `strombus.worker.peers.Kind`: when the member sends such a message; "save": when it has
        written its part of a checkpoint, and told nobody; "result": when it has done all. Of a task of averaging:
        "start", "step": within its minibatches, "result"; "merge" and "finish", where workers do that (on Dask).
    action : {"kill", "kill_engine", "stop", "pause", "slow", "hang", "raise", "garbage", "cut", "flip"}
        Its process gets SIGKILL or SIGSTOP, or the process of its engine that started it (Spark's JVM) gets SIGKILL; it
        is stopped or sleeps for `seconds`; it works for ever, it raises, or what it sends is damaged. "cut": from
        then on no message of other members reaches it, nor of it them. "flip": bits of the frames that
        come to it change, all the time.
    step : int
        The first step whose update counts as reaching "UPDATE"; of averaging the round.
    after : int
        Times that the moment has passed in the worker's process before it counts.
    seconds : float
    once : str
        A file that is made when it happens, and that keeps it from happening again: an engine runs a lost task again.
    """

    rank: int
    phase: str
    action: Action
    step: int = 3
    after: int = 0
    seconds: float = 2.0
    once: str = ""
    _passed: list[str] = field(default_factory=list, repr=False, compare=False)

    def is_now(self, phase: str, step: int | None = None) -> bool:
        """Say whether this is the moment."""
        if phase != self.phase or (step is not None and phase == Kind.UPDATE.name and step < self.step):
            return False
        self._passed.append(phase)
        if len(self._passed) <= self.after:
            return False
        if self.once:
            try:
                Path(self.once).touch(exist_ok=False)
            except FileExistsError:
                return False
        return True

    def reach(self, phase: str, step: int | None = None, payload: Payload = b"") -> Payload:
        """Return the payload, unless this is the moment."""
        if not self.is_now(phase, step):
            return payload
        acts: dict[str, Callable[[], Any]] = {
            "kill": die,
            "kill_engine": lambda: os.kill(_parent(os.getppid()), signal.SIGKILL),
            "stop": _stop,
            "pause": partial(_pause, self.seconds),
            "slow": partial(time.sleep, self.seconds),
            "hang": _wait_for_ever,
            "raise": _break,
        }
        if self.action in acts:
            acts[self.action]()
        return bytes(byte ^ 0x5A for byte in bytes(payload)) if self.action == "garbage" else payload


@contextmanager
def inject(executor: Executor, fault: Fault, gangs: int | None = None) -> Iterator[None]:
    """Have what `executor` runs suffer `fault`.

    That is gangs that share training, the first `gangs` of them (by default all), and rounds of averaging.
    """
    gang, map_reduce = executor.gang, executor.map_reduce
    left = count() if gangs is None else iter(range(gangs))

    def faulty_gang(body: Callable[..., Any], payloads: Sequence[Any], *arguments: Any, **options: Any) -> list[Any]:
        if next(left, None) is None:
            return gang(body, payloads, *arguments, **options)
        return gang(partial(_suffer, fault, body), payloads, *arguments, **options)

    def faulty_rounds(task: Any, parts: Any, merge: Any, *arguments: Any, **options: Any) -> Any:
        if executor.name == "dask":  # elsewhere it is the driver that merges
            merge = partial(_suffer_call, fault, "merge", merge)
            if finish := options.get("finish"):
                options["finish"] = partial(_suffer_call, fault, "finish", finish)
        return map_reduce(trains(partial(_suffer_task, fault, task)), parts, merge, *arguments, **options)

    with mock.patch.object(executor, "gang", faulty_gang), mock.patch.object(executor, "map_reduce", faulty_rounds):
        yield


def _suffer_call(fault: Fault, phase: str, call: Callable[..., Any], *given: Any) -> Any:
    fault.reach(phase)
    return call(*given)


def _suffer_task(fault: Fault, task: Callable[..., Any], shared: Any, part: Any) -> Any:
    if (getattr(part, "rank", None), getattr(part, "number", None)) != (fault.rank, fault.step):
        return task(shared, part)

    def run(replica: Any, batches: Iterable[Any], *more: Any) -> Any:
        def each() -> Iterator[Any]:
            for batch in batches:
                yield batch
                fault.reach("step")

        return run_steps(replica, each(), *more)

    fault.reach("start")
    with mock.patch.object(averaging, "run_steps", run):
        result = task(shared, part)
    fault.reach("result")
    return result


def _suffer(fault: Fault, body: Callable[..., Any], member: Member, shared: Any, payload: Any) -> Any:
    if member.rank != fault.rank:
        return body(member, shared, payload)

    def make(name: Any, seat: Seat, options: TransportOptions) -> Transport:
        if (seat.run_id, seat.rank) != (run_id, member.rank):  # a later gang's, in the process of one that hangs
            return make_transport(name, seat, options)
        if fault.action == "flip":
            kind = transports[name] if isinstance(name, str) else name
            name = faulty(kind, LinkFaults(seed=fault.step, corrupt=0.1))
        return _FaultyTransport(make_transport(name, seat, options), fault)

    def write(saver: Saver, *given: Any) -> Any:
        files = write_part(saver, *given)
        if saver._member is member:
            fault.reach("save")
        return files

    hub = getattr(shared, "hub", None)
    run_id = member.run_id if hub is None else hub.run_id
    write_part = Saver._write
    fault.reach("start")
    with mock.patch.object(meeting, "make_transport", make), mock.patch.object(Saver, "_write", write):
        result = body(member, shared, payload)
    fault.reach("result")
    return result


class _FaultyTransport(Transport):
    """Another transport, until the fault's moment."""

    def __init__(self, inner: Transport, fault: Fault) -> None:
        super().__init__(inner.seat, inner.options)
        self._inner, self._fault = inner, fault
        self._cut = False

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
        name, fault = Kind(kind).name, self._fault
        if fault.action == "cut":
            self._cut = self._cut or fault.is_now(name, step)
        else:
            payload = fault.reach(name, step, payload)
        if not self._cut:
            self._inner.send(kind, step, payload, to=to)

    def receive(self, timeout: float = 0.0) -> list[Message]:
        found = self._inner.receive(timeout)
        return [] if self._cut else found

    def tolerate(self) -> None:
        self._inner.tolerate()
        self.lost = self._inner.lost

    def forget(self, rank: int) -> None:
        self._inner.forget(rank)

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
