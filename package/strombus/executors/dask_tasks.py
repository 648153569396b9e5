"""What the Dask executor runs on workers: module-level functions that return failures as values."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import math
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from distributed import Worker, get_client, get_worker

from strombus.errors import ExecutorError
from strombus.executors.base import Member
from strombus.executors.calls import Failure, load, run_task
from strombus.executors.dask_channels import QueueMemberChannel
from strombus.executors.members import LEAVE, LinkedMember, MemberPump, Ticket, load_body, run_member
from strombus.executors.values import Packed

__all__ = ["by_value", "merge_group", "probe_versions", "run_gang_member", "run_part", "view_value"]


LOOK = 0.5
"""Seconds between two looks at whether a member hangs."""
HANGS = 3.0
"""Seconds that a member gets to end when it is told to."""


def open_inputs(many: bool, inputs: Sequence[Any]) -> Any:
    """Return what a task is given for its shared values: None, one value, or a tuple."""
    values = tuple(value.get() if isinstance(value, Packed) else value for value in inputs)
    if many:
        return values
    return values[0] if values else None


def run_part(call: bytes, number: int, blob: bytes | None, native: Any, many: bool, *inputs: Any) -> Any:
    """Run a task on one part: its result, or a `Failure` (also one that an input brings along)."""
    if failures := [value for value in inputs if isinstance(value, Failure)]:
        return failures[0]
    try:
        task = load(call)
        part = native if blob is None else load(blob)
    except Exception as error:
        return Failure.of(error, number)
    return run_task(task, part, number, partial(open_inputs, many, inputs), get_worker().state.nthreads)


def merge_group(call: bytes, finish: bytes | None, *items: Any) -> Any:
    """Fold `items` from left to right, and finish the last merge of a tree."""
    if failures := [item for item in items if isinstance(item, Failure)]:
        return failures[0]
    merged = _run(lambda merge: functools.reduce(merge, items), call)
    return merged if finish is None else view_value(finish, merged)


def view_value(call: bytes, value: Any) -> Any:
    """Return ``view(value)``."""
    if isinstance(value, Failure):
        return value
    return _run(lambda view: view(open_inputs(False, [value])), call)


def _run(use: Callable[[Any], Any], call: bytes) -> Any:
    try:
        return use(load(call))
    except Exception as error:
        return Failure.of(error)


async def run_gang_member(ticket: Ticket, call: bytes, blob: bytes | None, native: Any, *inputs: Any) -> Any:
    """Run one member of a gang in this worker's process, in a thread of its own.

    Dask's profiler walks the stack of each thread that runs a task a hundred times a second, with the interpreter's
    lock held: that costs a member of short steps a tenth of its time. A coroutine has no such thread.

    A member that was told to end and hangs is left behind: as long as its task runs, the worker would start no other.
    """
    loop, worker = asyncio.get_running_loop(), get_worker()
    done: asyncio.Future[Any] = loop.create_future()
    member = LinkedMember(ticket, urlsplit(worker.address).hostname)

    def settle(result: Any) -> None:
        if not done.done():
            done.set_result(result)

    def work() -> None:
        try:
            result = _run_gang_member(member, call, blob, native, *inputs)
        except Exception as error:
            result = Failure.of(error, ticket.rank)
        with contextlib.suppress(RuntimeError):  # the worker has closed its loop meanwhile
            loop.call_soon_threadsafe(settle, result)

    name = f"strombus-member-{ticket.rank}"
    threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True).start()
    told = math.inf
    with _interrupts_ignored(worker):
        try:
            while not done.done():
                told = min(told, time.monotonic()) if member.stopped_by_others else math.inf
                if time.monotonic() - told > HANGS:
                    text = f"member {ticket.rank} was told to end and has not within {HANGS:g} s: it hangs"
                    return Failure.of(ExecutorError(text), ticket.rank, stopped=True)
                await asyncio.wait([done], timeout=LOOK)
            return done.result()
        except asyncio.CancelledError:  # the worker closes, and waits for what it has cancelled
            member.leave(f"Dask closes its worker {worker.address}")
            await asyncio.wait([done], timeout=LEAVE)
            raise


@contextlib.contextmanager
def _interrupts_ignored(worker: Worker) -> Iterator[None]:
    """Leave Ctrl-C, which terminals and notebooks send to all processes of a `LocalCluster`, to the driver.

    Only where a nanny can still end the process in order.
    """
    if worker.nanny is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run_gang_member(member: LinkedMember, call: bytes, blob: bytes | None, native: Any, *inputs: Any) -> Any:
    worker = get_worker()
    body, client = load_body(call), get_client()

    def run(member: Member, shared: Any, payload: bytes | None) -> Any:
        return body(member, shared, native if payload is None else load(payload))

    with MemberPump(member, lambda: QueueMemberChannel(client, member.run_id, member.address), idle=0.25):
        return run_member(member, run, partial(_open_shared, inputs), blob, worker.state.nthreads)


def _open_shared(inputs: Sequence[Any]) -> Any:
    if inputs and isinstance(inputs[0], Failure):
        raise inputs[0].to_error()
    return open_inputs(False, inputs)


def by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a copy of a self-contained function that travels by value, to workers that lack Strombus."""
    assert isinstance(function, types.FunctionType)
    twin = types.FunctionType(function.__code__, {"__builtins__": __builtins__}, function.__name__)
    twin.__module__ = "__main__"
    return twin


def probe_versions() -> dict[str, str]:
    """Return the versions of what must match; a package that is not there is left out.

    Only Strombus is imported: this runs in the worker's event loop, which torch's import would hold up.
    """
    import platform
    from importlib import import_module, metadata

    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("strombus", "torch", "numpy"):
        try:
            if name == "strombus":
                import_module(name)
            found[name] = metadata.version(name)
        except Exception:  # whatever goes wrong there, it cannot be used there
            continue
    return found
