"""What the ends of a gang do in the cases of the transports' suite."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from strombus.errors import PeerLost
from strombus.transport import Keys, Message, Seat, Transport, TransportOptions, make_keys, open_hub

__all__ = [
    "PATIENCE",
    "assert_complete",
    "gang",
    "in_threads",
    "loss_seen_by",
    "take",
    "talk",
    "train",
    "unconnected",
    "update_of",
]

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which a case has failed, on the slowest machine."""


def in_threads(ends: Sequence[Transport], work: Callable[[Transport], T]) -> list[T]:
    """Do `work` for each end in a thread of its own; return the results in order."""
    with ThreadPoolExecutor(len(ends)) as pool:
        return list(pool.map(work, ends))


@contextlib.contextmanager
def gang(
    kind: type[Transport], size: int, options: TransportOptions, run_id: str = "run", keys: Keys | None = None
) -> Iterator[list[Transport]]:
    """Yield the connected ends of a gang; they are closed at the end."""
    keys = keys or make_keys()
    with unconnected(kind, size, options, run_id, keys) as (ends, addresses):
        try:
            in_threads(ends, lambda end: end.connect(addresses))
            yield ends
        finally:
            in_threads(ends, lambda end: end.close(flush=1.0))


@contextlib.contextmanager
def unconnected(
    kind: type[Transport], size: int, options: TransportOptions, run_id: str, keys: Keys
) -> Iterator[tuple[list[Transport], list[bytes]]]:
    """Yield the ends of a gang, with a star's hub where it is no member, and what they connect to."""
    seats = [Seat(rank, size, run_id, 0, keys, hub=size // 2) for rank in range(size)]
    with open_hub(kind, options, size, keys, lambda: ["127.0.0.1"]) as hub:
        if hub is not None:
            seats = [replace(seat, run_id=hub.run_id, hub=size) for seat in seats]
        ends = [kind(seat, options) for seat in seats]
        yield ends, [*(end.address() for end in ends), *([] if hub is None else [hub.address])]


def take(end: Transport, count: int, timeout: float = PATIENCE) -> list[Message]:
    """Receive until `count` messages have come, or the time is over."""
    found: list[Message] = []
    deadline = time.monotonic() + timeout
    while len(found) < count and time.monotonic() < deadline:
        found += end.receive(0.05)
    return found


def loss_seen_by(end: Transport) -> tuple[int | None, float]:
    """Receive until a member is lost; return who, and after how many seconds."""
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE:
        try:
            end.receive(0.05)
        except PeerLost as lost:
            end.close(flush=0.0)
            return lost.rank, time.monotonic() - started
    raise AssertionError(f"member {end.seat.rank} noticed nothing")


def talk(end: Transport, steps: int, *, listen: bool = True, others: int = 0) -> list[Message]:
    """Send `steps` messages and receive everybody's, or so many `others`', in between too if `listen`."""
    mine: list[Message] = []
    for step in range(steps):
        end.send(1, step, bytes([end.seat.rank]) * (step + 1))
        if listen:
            mine += end.receive()
    return mine + take(end, steps * (others or end.seat.size - 1) - len(mine))


def assert_complete(messages: Sequence[Message], origins: set[int], steps: int) -> None:
    """Check that each origin's messages of `talk` are there, once and in order."""
    assert {message.origin for message in messages} == origins
    for origin in origins:
        theirs = [message for message in messages if message.origin == origin]
        assert [message.step for message in theirs] == list(range(steps))
        assert all(message.payload == bytes([origin]) * (message.step + 1) for message in theirs)


def update_of(rank: int, step: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a member's update of a step: such that a sum tells which are in it."""
    return np.random.default_rng([rank, step]).integers(-(2**40), 2**40, 50)


def train(end: Transport, steps: int, done: threading.Barrier) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Send updates and add everybody's, twice if one comes twice; return the sum when all have everything."""
    replica = np.zeros(50, np.int64)
    missing = steps * (end.seat.size - 1)
    deadline = time.monotonic() + PATIENCE
    for step in range(steps):
        mine = update_of(end.seat.rank, step)
        end.send(1, step, mine.tobytes())
        replica += mine
    finished = threading.Thread(target=done.wait, args=(PATIENCE,))
    while (missing > 0 or finished.is_alive()) and time.monotonic() < deadline:
        for message in end.receive(0.01):  # also when all is there: the others may need something again
            replica += np.frombuffer(message.payload, np.int64)
            missing -= 1
        if missing == 0 and finished.ident is None:
            finished.start()
    finished.join(PATIENCE)
    return replica
