"""Run on this machine: one slot in this process, more as processes of our own."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from strombus.errors import (
    ConfigurationError,
    ExecutorError,
    GangError,
    GangTimeout,
    GangUnavailable,
    TaskError,
)
from strombus.executors.base import Control, Executor, Member, Shared, Task, merge_plan
from strombus.executors.board import Board, new_run_id
from strombus.executors.calls import TRAINING, Failure, dump, run_task, torch_guard
from strombus.executors.local_processes import (
    GONE,
    LocalMember,
    Slot,
    call_member,
    call_task,
    check_parts,
    discard_result,
    open_part,
    open_result,
)
from strombus.executors.rendezvous import RendezvousServer
from strombus.executors.values import FileValue, Packed, as_values, write_file
from strombus.types import Capacity, Event

__all__ = ["LocalExecutor", "LocalShared"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

TRIES = 4
"""Processes that may die under one part before the part is to blame."""
AHEAD = 4
"""Parts in flight or waiting to be yielded, in multiples of the slots."""


class LocalShared(Generic[T]):
    """A value on the driver; written to a file, once, when a process needs it."""

    def __init__(self, value: T, folder: _Folder) -> None:
        self._value: T | None = value
        self._folder = folder
        self._path: Path | None = None
        self._freed = False
        self._lock = threading.Lock()

    def write(self) -> Path:
        """Write the value where other processes can read it; they map it into memory."""
        self.get()
        with self._lock:
            if self._path is None:
                self._path = write_file(Packed.of(self._value), self._folder.path)
                self._forget = weakref.finalize(self, self._path.unlink, missing_ok=True)
            return self._path

    def __reduce__(self) -> tuple[Any, ...]:
        return FileValue, (self.write(),)

    def get(self) -> T:
        """Return the value itself; it must not change while it is shared."""
        if self._freed:
            raise ExecutorError("this shared value was freed; share it again")
        return self._value  # type: ignore[return-value]

    def look(self, view: Callable[[T], R]) -> R:
        """Return ``view(value)``."""
        return view(self.get())

    def free(self) -> None:
        """Forget the value and its file; a second call does nothing."""
        with self._lock:
            self._freed, self._value = True, None
            if self._path is not None:
                self._forget()


class _Folder:
    """A temporary directory that is made when first needed."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        with self._lock:
            if self._path is None:
                self._path = Path(tempfile.mkdtemp(prefix="strombus-"))
            return self._path

    def remove(self) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)


class LocalExecutor(Executor):
    """Run tasks and gangs on this machine.

    With one slot a task runs in this process and in the calling thread, torch's random state and
    thread count restored after it. With more, each slot is one process that is started when first
    needed, stays until `close`, and gets an equal share of the CPUs. Programs need no
    ``if __name__ == "__main__"``; functions and classes of a script travel by value.

    Parameters
    ----------
    workers : int, optional
        Slots; the CPUs this process may use by default.
    """

    name = "local"
    survives = True
    _whole: LocalExecutor | None = None
    """What this one is a part of."""

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ConfigurationError(f"workers must be at least 1, got {workers}")
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = workers or cpus
        self._threads = max(1, cpus // count)
        self._slots = [Slot(self._threads) for _ in range(count)]
        self._folder = _Folder()
        self._gang = threading.Lock()
        self._here = count == 1  # in this process
        self._closed = False
        self._finalizer = weakref.finalize(self, _close, self._slots, self._folder)

    def capacity(self) -> Capacity:
        """Return the slots of this machine."""
        return Capacity(len(self._slots), (socket.gethostname(),), self._threads)

    def split(self, count: int) -> tuple[LocalExecutor, LocalExecutor | None]:
        """Return executors on `count` of the processes and on the others; see `Executor.split`."""
        if len(self._slots) <= count:
            return self, None
        first, second = copy.copy(self), copy.copy(self)
        for one, slots in ((first, self._slots[:count]), (second, self._slots[count:])):
            one._slots, one._gang, one._whole = slots, threading.Lock(), self
        return first, second

    def share(self, value: T) -> Shared[T]:
        """Make `value` readable in every process; it is loaded once in each."""
        self._ensure_open()
        shared = LocalShared(value, self._folder)
        if not self._here:
            shared.write()
        return shared

    def map(
        self, task: Task, parts: Sequence[Any], shared: Shared[Any] | tuple[Shared[Any], ...] | None = None
    ) -> Iterator[Any]:
        """Yield ``task(shared_value, part)`` for each part, in order; part i goes to slot i where that is free."""
        self._ensure_open()
        check_parts(parts)
        run = self._map_here if self._here else self._map_in_processes
        for result in run(task, parts, shared):
            if isinstance(result, Failure):
                raise result.to_error()
            yield result

    def _map_here(self, task: Task, parts: Sequence[Any], shared: Any) -> Iterator[Any]:
        for number, part in enumerate(parts):
            call = lambda value, one: task(value, open_part(one))  # noqa: E731 - it belongs to this loop
            yield run_task(call, part, number, partial(as_values, shared), marked=task)

    def _map_in_processes(self, task: Task, parts: Sequence[Any], shared: Any) -> Iterator[Any]:
        """Keep every slot busy, a bounded number of results ahead of the consumer."""
        running: dict[Future[Any], tuple[int, int, int]] = {}
        done: dict[int, Any] = {}
        started = 0

        def start(number: int, slot: int, tries: int) -> None:
            call = dump((task, parts[number], shared), f"task or part {number}")
            future = self._slots[slot].submit(call_task, number, self._threads, self._folder.path, call)
            running[future] = (number, slot, tries)

        free = list(range(len(self._slots)))
        try:
            for wanted in range(len(parts)):
                while wanted not in done:
                    while free and started < min(len(parts), wanted + AHEAD * len(self._slots)):
                        start(started, free.pop(0), 1)
                        started += 1
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        number, slot, tries = running.pop(future)
                        if self._broke(future, number, slot, tries):
                            start(number, slot, tries + 1)
                        else:
                            done[number] = open_result(future.result())
                            free.append(slot)
                yield done.pop(wanted)
        except KeyboardInterrupt:  # there and then: nobody waits for the tasks that run
            for _, slot, _ in running.values():
                self._slots[slot].restart()
            raise
        finally:
            for future in running:
                discard_result(future)

    def _broke(self, future: Future[Any], number: int, slot: int, tries: int) -> bool:
        """Say whether the part must run again because its process died."""
        error = future.exception()
        if not isinstance(error, GONE):
            return False
        self._slots[slot].restart(future)
        if tries >= TRIES:
            raise TaskError(
                f"part {number} failed: {tries} processes died under it (out of memory?)", number
            ) from error
        return True

    def map_reduce(
        self,
        task: Task,
        parts: Sequence[Any],
        merge: Callable[[R, R], R],
        shared: Shared[Any] | tuple[Shared[Any], ...] | None = None,
        *,
        depth: int = 2,
        finish: Callable[[R], Any] | None = None,
    ) -> Shared[Any]:
        """Run `task` on each part; merge here, in the order of `merge_plan`."""
        if not len(parts):
            raise ConfigurationError("map_reduce needs at least one part, got none")
        level = list(self.map(task, parts, shared))
        merged = run_task(lambda _, items: _fold(items, merge, depth, finish), level, 0, lambda: None)
        if isinstance(merged, Failure):
            error = merged.exception()
            raise TaskError(
                f"merging failed on {merged.place}: {merged.name}: {merged.text}", None, merged.traceback
            ) from error
        return LocalShared(merged, self._folder)

    def gang(
        self,
        body: Callable[[Member, Any, Any], Any],
        payloads: Sequence[Any],
        shared: Shared[Any] | None = None,
        *,
        timeout: float,
        on_event: Callable[[int, Event], None] | None = None,
        control: Control | None = None,
        attempt: int = 0,
        survive: bool = False,
    ) -> list[Any]:
        """Run a gang: one member in this process and thread, more in a process each."""
        self._ensure_open()
        check_parts(payloads)
        if len(payloads) > len(self._slots):
            raise GangUnavailable(
                f"a gang of {len(payloads)} members needs as many slots, this executor has {len(self._slots)}; "
                f"ask for fewer workers, or for LocalExecutor(workers={len(payloads)})"
            )
        if len(payloads) == 1 and self._whole is None:
            return [self._alone(body, payloads[0], shared, timeout, on_event, control, attempt)]
        if not self._gang.acquire(timeout=min(timeout, 1.0)):
            logger.warning("waiting up to %g s (option `timeout`) for another gang of this executor to end", timeout)
            if not self._gang.acquire(timeout=max(0.0, timeout - 1.0)):
                raise GangTimeout(f"waited {timeout:g} s for another gang of this executor to end; raise `timeout`")
        try:
            server = RendezvousServer(len(payloads), new_run_id(), attempt, timeout, survive=survive)
            return self._together(server, body, payloads, shared, on_event, control)
        finally:
            self._gang.release()

    def _alone(
        self, body: Any, payload: Any, shared: Any, timeout: float, on_event: Any, control: Any, attempt: int
    ) -> Any:
        member = LocalMember(new_run_id(), attempt, on_event, control)
        with ExitStack() as stack:
            try:
                stack.enter_context(TRAINING.take(timeout=timeout))
            except TimeoutError as error:
                raise GangTimeout(
                    f"{error}; raise `timeout`, or train in processes: LocalExecutor(workers=2)"
                ) from None
            try:
                with torch_guard():
                    return body(member, as_values(shared), open_part(payload))
            except Exception as error:
                raise Failure.of(error, 0).to_error(GangError, "member") from error

    def _together(
        self, server: RendezvousServer, body: Any, payloads: Any, shared: Any, on_event: Any, control: Any
    ) -> list[Any]:
        with server:
            board = server.board
            futures: list[Future[Any]] = []
            returned: dict[int, Any] = {}
            call = dump(body, "body")
            given = [dump((payload, shared), f"payload {i}") for i, payload in enumerate(payloads)]

            def poll() -> None:
                for rank, future in enumerate(futures):
                    if future.done() and future.exception() is not None:
                        board.lose(rank, f"its process ended ({type(future.exception()).__name__})")

            try:
                for rank, (slot, own) in enumerate(zip(self._slots, given, strict=False)):
                    ticket = server.ticket(rank)
                    futures.append(slot.submit(call_member, ticket, self._threads, self._folder.path, call, own))
                board.supervise(poll, on_event, control)
                return self._results(board, futures, returned)
            except GangError:
                wait(futures, timeout=1.0)
                self._open(futures, returned)
                error = board.last_error(returned)
                raise error from error.__cause__
            finally:
                self._end(futures)

    @staticmethod
    def _results(board: Board, futures: list[Future[Any]], returned: dict[int, Any]) -> list[Any]:
        """Return what members who have all finished returned; each result can be opened once."""
        deadline = time.monotonic() + board.timeout
        for rank, future in enumerate(futures):
            if board.is_lost(rank):
                returned[rank] = board.give_up(rank)
            elif not wait([future], timeout=max(0.0, deadline - time.monotonic())).done:
                returned[rank] = board.overdue(rank)
            elif isinstance(future.exception(), GONE):
                returned[rank] = board.give_up(rank, "its process ended before its result came")
            else:
                returned[rank] = open_result(future.result())
        return board.some([board.accept(rank, one) for rank, one in returned.items()])

    @staticmethod
    def _open(futures: list[Future[Any]], returned: dict[int, Any]) -> None:
        """Open what members have returned by now: their results, or how they failed with the exceptions."""
        for rank, future in enumerate(futures):
            if rank not in returned and future.done() and not future.cancelled() and future.exception() is None:
                returned[rank] = open_result(future.result())

    def _end(self, futures: list[Future[Any]]) -> None:
        """Leave no member running: what has been told to stop and still works after 2 s is killed."""
        deadline = time.monotonic() + 2.0
        for slot, future in zip(self._slots, futures, strict=False):
            if not future.cancel():
                wait([future], timeout=max(0.0, deadline - time.monotonic()))
            if not future.done() or (not future.cancelled() and future.exception() is not None):
                slot.restart(future)

    def close(self) -> None:
        """End the processes and remove the temporary files; a second call does nothing."""
        if self._whole is None:
            self._closed = True
            self._finalizer()

    def _ensure_open(self) -> None:
        if self._closed or (self._whole is not None and self._whole._closed):
            raise ExecutorError("this LocalExecutor is closed; make a new one")


def _close(slots: list[Slot], folder: _Folder) -> None:
    for slot in slots:
        slot.stop()
    folder.remove()


def _fold(level: list[Any], merge: Callable[[Any, Any], Any], depth: int, finish: Callable[[Any], Any] | None) -> Any:
    """Merge `level` by the plan; each item is dropped as soon as it is merged."""
    for groups in merge_plan(len(level), depth):
        above = []
        for group in groups:
            merged = level[group[0]]
            for index in group[1:]:
                merged = merge(merged, level[index])
                level[index] = None
            above.append(merged)
        level = above
    return level[0] if finish is None else finish(level[0])
