"""One slot of the local executor: a process of its own, and what runs in it."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from loky import process_executor

from strombus.errors import ConfigurationError
from strombus.executors.base import Control, Member
from strombus.executors.calls import Failure, dump, load, run_task
from strombus.executors.members import load_body, run_member
from strombus.executors.rendezvous import RendezvousMember, RendezvousTicket
from strombus.executors.values import FileValue, Packed, as_values, write_file
from strombus.types import ClockBounds, Event, NativePartition

__all__ = [
    "GONE",
    "LocalMember",
    "Slot",
    "call_member",
    "call_task",
    "check_parts",
    "discard_result",
    "open_part",
    "open_result",
]

GONE = (BrokenProcessPool, process_executor.ShutdownExecutorError)
"""How a call ends whose process died, or was ended for the sake of another one."""
LARGE = 2**18
"""Bytes of arrays from which a result goes through a file."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Slot:
    """A process that runs one call after another; it starts with the first call, and again after its death.

    Each slot has a pool of one process, rather than all slots a pool of several: the death of one is then
    told with its slot, takes no other along, and part i finds the caches of slot i again.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool: process_executor.ProcessPoolExecutor | None = None
        self._of: WeakKeyDictionary[Future[Any], process_executor.ProcessPoolExecutor] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)`` in the process; the future fails with one of `GONE` if it ends before."""
        with self._lock:
            future: Future[Any]
            try:
                future = self._started().submit(function, *arguments)
            except GONE:  # it has died, and another fit in this slot has yet to see it
                self._pool = None
                future = self._started().submit(function, *arguments)
            self._of[future] = self._started()
            return future

    def _started(self) -> process_executor.ProcessPoolExecutor:
        if self._pool is None:
            env = dict.fromkeys(THREAD_VARIABLES, str(self._threads))
            self._pool = process_executor.ProcessPoolExecutor(
                max_workers=1, initializer=start_process, initargs=(os.getpid(),), env=env
            )
        return self._pool

    def restart(self, under: Future[Any] | None = None) -> None:
        """Kill the process, or only that which ran the call `under`; the next call starts a new one."""
        with self._lock:
            pool = self._pool if under is None else self._of.get(under)
            if pool is self._pool:
                self._pool = None
        if pool is not None:
            pool.shutdown(wait=True, kill_workers=True)

    def stop(self) -> None:
        """Kill the process."""
        self.restart()


def start_process(driver: int) -> None:
    """Prepare a process: keep it however much memory its caches take, and as long as process `driver` lives.

    Loky replaces a process that has grown by 300 MB, which is what a network with its data does. Ctrl-C in a terminal,
    and SIGTERM of a batch system, reach the driver's children too: what is to be done then is for the driver to say.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf
    threading.Thread(target=_end_with, args=(driver,), name="strombus-driver", daemon=True).start()


def _end_with(driver: int) -> None:
    """End this process when its driver is gone: one that was killed cannot say so to a process that waits for it."""
    while os.getppid() == driver:
        time.sleep(1.0)
    os._exit(1)


def call_task(number: int, threads: int, folder: Path, call: bytes) -> bytes:
    """Run one task, pickled with its part and shared value; return its pickled result or `Failure`."""

    def run(opened: tuple[Any, Any, Any], _: None) -> Any:
        task, part, shared = opened
        return task(as_values(shared), open_part(part))

    # Opened where failures are caught: what the process cannot import is the task's error too.
    return pack_result(run_task(run, None, number, partial(load, call), threads), number, folder)


def call_member(ticket: RendezvousTicket, threads: int, folder: Path, body: bytes, given: bytes) -> bytes:
    """Run one member of a gang; return its pickled result, `Failure` or `Superseded`.

    Parameters
    ----------
    body, given : bytes
        The pickled body, and payload and shared value.
    """
    loaded = load_body(body)

    def run(member: Member, opened: tuple[Any, Any], _: None) -> Any:
        payload, shared = opened
        return loaded(member, as_values(shared), open_part(payload))

    with RendezvousMember(ticket, "127.0.0.1") as member:
        result = run_member(member, run, partial(load, given), None, threads)
    return pack_result(result, ticket.rank, folder)


def pack_result(result: Any, number: int, folder: Path) -> bytes:
    """Pickle a result for `open_result`; large arrays go through a file, several times as fast as the pipe."""
    try:
        packed = Packed.of(result, "the result")
    except ConfigurationError as error:
        return dump(Failure.of(error, number), "the failure")
    if packed.nbytes < LARGE:
        return dump(result, "the result")
    return dump(_ResultFile(write_file(packed, folder)), "the file's name")


class _ResultFile(FileValue):
    """Where a result lies until the driver takes it."""


def open_result(blob: bytes) -> Any:
    """Return what `pack_result` packed; once only."""
    result = load(blob)
    return result.take() if isinstance(result, _ResultFile) else result


def discard_result(future: Future[Any]) -> None:
    """Remove the file of a result that nobody wants any more, when it comes."""
    if not future.cancel():
        future.add_done_callback(lambda done: done.exception() or open_result(done.result()))


def open_part(part: Any) -> Any:
    """Return the data of a native partition, any other part as it is."""
    if not isinstance(part, NativePartition):
        return part
    check_parts([part])
    return part.handle.compute(scheduler="synchronous")


def check_parts(parts: Sequence[Any]) -> None:
    """Raise ConfigurationError for a partition that this backend has no way to."""
    for part in parts:
        if isinstance(part, NativePartition) and (part.engine != "dask" or not hasattr(part.handle, "compute")):
            raise ConfigurationError(
                f"partition {part.index} is held by {part.engine}, which the local backend cannot open; "
                f"use backend={part.engine!r}"
            )


class LocalMember:
    """The only member of a gang: it runs in the driver's thread, so the driver answers directly."""

    rank = 0
    size = 1

    def __init__(
        self, run_id: str, attempt: int, on_event: Callable[[int, Event], None] | None, control: Control | None
    ) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.host = socket.gethostname()
        self.clock = ClockBounds(0.0, 0.0)
        self._on_event = on_event
        self._control = control

    def exchange(self, payload: bytes) -> list[bytes]:
        """Return the payload: nobody else is there."""
        return [payload]

    def stopping(self) -> bool:
        """Say whether the driver asked to finish."""
        return self._control is not None and self._control.stopping()

    def commands(self) -> list[Any]:
        """Return the driver's commands."""
        return [] if self._control is None else self._control.commands()

    def report(self, event: Event) -> None:
        """Hand an event to the driver."""
        if self._on_event is not None:
            self._on_event(0, event)

    def met(self) -> None:
        """Do nothing: nobody else is there."""

    def miss(self, rank: int, reason: str) -> None:
        """Do nothing: nobody else is there."""
