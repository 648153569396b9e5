"""What the executor suite runs on workers: module-level functions that any worker can import."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.executors.base import Member
from strombus.types import Event

__all__ = [
    "BrokenOnArrival",
    "SlowToLeave",
    "add",
    "add_shared",
    "describe_member",
    "exchange_and_fail",
    "exchange_twice",
    "fail_and_watch",
    "fail_on",
    "join",
    "join_in_steps",
    "label",
    "length",
    "mebibytes",
    "negate",
    "report_and_wait",
    "report_steps",
    "return_slowly",
    "scale_arrays",
    "seed_and_draw",
    "shared_and_part",
    "square",
    "wait_for_command",
    "wait_for_stop",
]


class BrokenOnArrival:
    """A value that can be pickled and never be loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (fail_to_load, ())


class SlowToLeave:
    """A value that takes seconds to be pickled."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        time.sleep(self.seconds)
        return (SlowToLeave, (self.seconds,))


def return_slowly(member: Member, seconds: float, payload: float) -> SlowToLeave:
    """Return what takes seconds to leave the worker, from rank 1, where the gang has met."""
    member.exchange(b"")
    return SlowToLeave(seconds if member.rank == 1 else 0.0)


def fail_to_load() -> None:
    """Raise, as a class that the worker lacks would."""
    raise ImportError("broken on arrival")


def square(_: Any, part: int) -> int:
    """Return the part's square."""
    return part * part


def shared_and_part(shared: Any, part: Any) -> tuple[Any, Any]:
    """Return both arguments."""
    return shared, part


def add_shared(shared: Any, part: Any) -> Any:
    """Add the part to the shared value."""
    return shared + part


def scale_arrays(shared: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
    """Multiply two arrays."""
    return np.asarray(shared * part)


def seed_and_draw(_: Any, part: int) -> float:
    """Seed torch's global generator and draw from it."""
    import torch

    torch.manual_seed(part)
    torch.set_num_threads(1)
    return float(torch.rand(()))


def fail_on(numbers: Sequence[int], part: int) -> int:
    """Divide by zero on the given parts."""
    return part // 0 if part in numbers else part


def label(_: Any, part: int) -> str:
    """Name a leaf of a merge tree."""
    return str(part)


def join(left: str, right: str) -> str:
    """Merge two subtrees into a text that shows the order: neither commutative nor associative."""
    return f"({left}+{right})"


def join_in_steps(left: str, right: str) -> str:
    """Concatenate: associative, not commutative."""
    return left + "," + right


def add(left: Any, right: Any) -> Any:
    """Add."""
    return left + right


def negate(value: Any) -> Any:
    """Change the sign."""
    return -value


def length(value: Any) -> int:
    """Return ``len(value)``."""
    return len(value)


def describe_member(member: Member, shared: Any, payload: Any) -> dict[str, Any]:
    """Return what a member sees."""
    return {
        "rank": member.rank,
        "size": member.size,
        "attempt": member.attempt,
        "run_id": member.run_id,
        "host": member.host,
        "clock": member.clock,
        "shared": shared,
        "payload": payload,
    }


def exchange_twice(member: Member, _: Any, payload: bytes) -> tuple[list[bytes], list[bytes]]:
    """Give the payload, then the payload doubled: returns only when all members run at the same time."""
    return member.exchange(payload), member.exchange(payload * 2)


def exchange_and_fail(member: Member, failing: int, _: Any) -> None:
    """Fail in one member while the others wait for it in an exchange."""
    if member.rank == failing:
        raise ZeroDivisionError("this member failed by itself")
    member.exchange(b"")


def fail_and_watch(member: Member, failing: int, _: Any) -> bool:
    """Fail in one member after all have met; the others work until they are told to stop."""
    member.exchange(b"")
    if member.rank == failing:
        raise ZeroDivisionError("this member failed by itself")
    return wait_for_stop(member, None, 60.0)


def wait_for_stop(member: Member, _: Any, limit: float) -> bool:
    """Work until told to stop; False after `limit` seconds."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if member.stopping():
            return True
        time.sleep(0.02)
    return False


def wait_for_command(member: Member, _: Any, limit: float) -> list[Any]:
    """Return the first commands that come within `limit` seconds."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if found := member.commands():
            return found
        time.sleep(0.02)
    return []


def report_and_wait(member: Member, _: Any, limit: float) -> list[Any]:
    """Report that this member is here, and wait for a command; return the commands."""
    member.report(Event("here", member.rank))
    return wait_for_command(member, _, limit)


def report_steps(member: Member, _: Any, count: int) -> int:
    """Report `count` events."""
    for step in range(count):
        member.report(Event("step", member.rank, float(step), 0.5, member.host, {"step": step, "loss": 0.25}))
    return count


def mebibytes(count: int) -> NDArray[np.float32]:
    """Return `count` MiB of float32, all different."""
    return np.arange(count * 2**18, dtype=np.float32)
