"""A gang on Dask: one strictly pinned task for each worker process, watched from the driver."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, Future, Semaphore

from strombus.errors import GangError, GangTimeout, GangUnavailable
from strombus.executors.base import Control
from strombus.executors.board import Board, new_run_id
from strombus.executors.board_pump import BoardPump
from strombus.executors.calls import dump
from strombus.executors.dask_apart import inputs_of
from strombus.executors.dask_channels import QueueBoardChannel
from strombus.executors.dask_placement import Placement, alive_workers, holding, silent_workers, spread
from strombus.executors.dask_tasks import HANGS, run_gang_member
from strombus.executors.members import LEASE
from strombus.types import Event

__all__ = ["Terms", "run_gang", "warn_of_open_channel"]

logger = logging.getLogger(__name__)

WATCH = 1.0
"""Seconds between two looks at the scheduler's list of workers."""
LOOK = 5.0
"""Seconds between two looks at who says nothing, until all members have come."""
IDLE = 0.1
"""Seconds between two looks at what the members say: all of it lies in one queue, however many they are."""
ENDED = ("error", "cancelled", "lost")
"""How the scheduler calls tasks that it has given up."""
LAST_WORDS = 1.0
"""Seconds that members who have stopped get to hand in how they failed."""


@dataclass(frozen=True)
class Terms:
    """How a gang is run; see `Executor.gang`.

    Parameters
    ----------
    placement : Placement
        Where; the workers of members that said nothing are added to those that are given up.
    copy : callable
        Puts a copy of what is shared on a worker that cannot fetch it from another one.
    """

    timeout: float
    attempt: int
    survive: bool
    placement: Placement
    copy: Callable[[str], Future]


def warn_of_open_channel(address: str) -> None:
    """Say so in the log when what travels through the scheduler can be read and changed on its way."""
    where = urlsplit(address)
    open_ = where.scheme in ("tcp", "ws", "ucx") and where.hostname not in (None, "localhost", "::1")
    if open_ and not str(where.hostname).startswith("127."):
        logger.warning(
            "the members' keys, as all of the fit's code, go through the Dask scheduler %s, which is not encrypted: "
            "who reads that network can read what they exchange; give the cluster TLS (distributed.Security) there",
            address,
        )


def run_gang(
    client: Client,
    body: Callable[..., Any],
    payloads: Sequence[tuple[bytes | None, Any]],
    shared: Future | None,
    terms: Terms,
    on_event: Callable[[int, Event], None] | None,
    control: Control | None,
) -> list[Any]:
    """Run a gang; see `Executor.gang`. A payload is pickled, or the future of a partition."""
    call, placement = dump(body, "body"), terms.placement
    placement.refresh()
    workers = list(placement.alive())
    if len(payloads) > len(workers):
        which = " that this executor may use" if placement.chosen else ""
        raise GangUnavailable(
            f"a gang of {len(payloads)} members needs as many worker processes, the Dask cluster has {len(workers)}"
            f"{which}; ask for fewer workers, or start more (`client.wait_for_workers`)"
        )
    with leased_workers(client, workers, len(payloads), terms.timeout) as chosen, holding(chosen):
        board = Board(len(payloads), new_run_id(), terms.attempt, terms.timeout, terms.survive)
        with BoardPump(board, lambda: QueueBoardChannel(client, board.run_id), idle=IDLE):
            inputs = inputs_of(client, shared, chosen, terms.copy)
            futures = [
                client.submit(
                    run_gang_member,
                    board.ticket(rank),
                    call,
                    *payloads[rank],
                    *inputs[rank],
                    key=f"strombus-gang-{board.run_id}-{rank}",
                    workers=[worker],
                    allow_other_workers=False,
                    resources=placement.resources or None,
                    pure=False,
                    retries=0,
                )
                for rank, worker in enumerate(chosen)
            ]
            watch = _Watch(client, board, chosen, futures)
            try:
                board.supervise(watch, on_event, control)
                return watch.results()
            except GangError:
                error = board.last_error(watch.returned())
                raise error from error.__cause__
            finally:
                until = time.monotonic() + HANGS + LEASE
                placement.given_up.update({chosen[rank]: until for rank in board.silent if not futures[rank].done()})
                client.cancel(futures)


@contextmanager
def leased_workers(client: Client, workers: list[str], count: int, timeout: float) -> Iterator[list[str]]:
    """Hold `count` workers against other gangs, taken in sorted order so that two gangs never wait for each other.

    Each lease is renewed by this client and runs out by itself after a driver's death; `distributed.MultiLock`
    would stay taken.
    """
    leases = {
        worker: Semaphore(1, f"strombus-gang-{worker}", scheduler_rpc=client.scheduler, loop=client.loop)
        for worker in workers
    }
    for lease in leases.values():
        lease.register()
    busy = {worker: lease.get_value() if count < len(workers) else 0 for worker, lease in leases.items()}
    chosen = sorted(spread(workers, busy)[:count])
    deadline = time.monotonic() + timeout
    with ExitStack() as held:
        for worker in chosen:
            if not _acquire(leases[worker], worker, deadline):
                raise GangTimeout(
                    f"waited {timeout:g} s for worker {worker}, held by another gang; let it end, or raise `timeout`"
                )
            held.callback(leases[worker].release)
        yield chosen


def _acquire(lease: Semaphore, worker: str, deadline: float) -> bool:
    """Take a lease, and say so in the log when another gang has it."""
    left = max(0.0, deadline - time.monotonic())
    if lease.acquire(timeout=min(1.0, left)):
        return True
    logger.warning("waiting up to %.0f s (option `timeout`) for worker %s, held by another gang", left, worker)
    return bool(lease.acquire(timeout=max(0.0, deadline - time.monotonic())))


class _Watch:
    """Tells the board which members' workers are gone; called several times a second, looks once."""

    def __init__(self, client: Client, board: Board, workers: list[str], futures: list[Future]) -> None:
        self._client = client
        self._board = board
        self._workers = workers
        self._futures = futures
        self._due = time.monotonic()
        self._look_at = self._due + LOOK
        self._silent = set[str]()

    def __call__(self) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + WATCH
        # Who lost the worker comes first: with it, data may have gone that the tasks of others were given, and these
        # are cancelled then. Asked in this order, because the scheduler cancels them after it has lost the worker.
        ended = {rank: future.status for rank, future in enumerate(self._futures) if future.status in ENDED}
        alive = alive_workers(self._client, self._workers)
        for rank, (worker, future) in enumerate(zip(self._workers, self._futures, strict=True)):
            if worker not in alive and future.status != "finished":
                self._board.lose(rank, f"the scheduler lost its worker {worker} (killed, or out of memory?)")
        for rank, status in ended.items():
            self._board.lose(rank, f"its task ended as {status}")
        self._look_for_silent()

    def _look_for_silent(self) -> None:
        """Give up workers that hang before a member is there whose lease would tell; others may load from them.

        Those that are silent twice: an import may hold a worker's interpreter for some seconds.
        """
        to_come = self._board.to_come()
        if not to_come or time.monotonic() < self._look_at:
            return
        before, self._silent = self._silent, silent_workers(self._client)
        self._look_at = time.monotonic() + LOOK
        for rank in sorted(to_come):
            if (worker := self._workers[rank]) in before & self._silent:
                self._board.lose(rank, f"the scheduler has not heard of its worker {worker} for a while: does it hang?")

    def results(self) -> list[Any]:
        """Return what members who have all finished returned."""
        deadline = time.monotonic() + self._board.timeout
        board = self._board
        found = [board.accept(rank, self._result(rank, deadline)) for rank in range(len(self._futures))]
        return board.some(found)

    def _result(self, rank: int, deadline: float) -> Any:
        future = self._futures[rank]
        while not future.done() and time.monotonic() < deadline:
            self()
            if self._board.broken:
                raise self._board.error()
            if self._board.is_lost(rank):
                break
            time.sleep(0.01)
        if self._board.is_lost(rank):
            return self._board.give_up(rank)
        try:
            return future.result(timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return self._board.overdue(rank)
        except Exception:
            if future.status == "finished":  # it came, and cannot be loaded here
                raise
            return self._board.give_up(rank, f"its task ended as {future.status}")

    def returned(self) -> dict[int, Any]:
        """Return what members have returned, or return in a moment: results, or failures with their exceptions."""
        deadline = time.monotonic() + LAST_WORDS
        found = {}
        for rank, future in enumerate(self._futures):
            if self._board.is_lost(rank):  # it hands in nothing, and nobody waits for that
                continue
            with suppress(Exception):  # of what has none to hand in
                left = self._board.timeout if future.status == "finished" else deadline - time.monotonic()
                found[rank] = future.result(timeout=max(0.0, left))
        return found
