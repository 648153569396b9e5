"""Which worker trains what in which round: over rows that any worker can read, or over cells an engine holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from strombus.data import NativeCollection
from strombus.executors.base import Executor, Task
from strombus.partitioning import Repartitioner, ranges_of
from strombus.types import Cursor
from strombus.worker.averaging import Round, train_cell, train_round
from strombus.worker.bench import Feed

__all__ = ["CellRounds", "Rounds", "SourceRounds"]


class Rounds(ABC):
    """The parts of each round of an epoch, and the task that trains one.

    Attributes
    ----------
    task : callable
    ranks : tuple of int
        For cells, the rank that trains each; empty otherwise.
    """

    task: Task
    ranks: tuple[int, ...] = ()

    @abstractmethod
    def of(self, epoch: int) -> Iterator[list[Any]]:
        """Deal the epoch's rows; yield the parts of each round, without workers that have no rows in it.

        Where a fit goes on within the epoch, the rounds that were taken before are left out.
        """

    @abstractmethod
    def after(self, epoch: int, number: int) -> Cursor | None:
        """Return where the epoch stands after its round `number`; None when that was its last."""

    def close(self) -> None:
        """Let go of what an engine holds for these rounds."""


class SourceRounds(Rounds):
    """Rounds over a `Source`: every epoch deals the rows anew."""

    task = staticmethod(train_round)

    def __init__(self, feed: Feed, repartitioner: Repartitioner, workers: int, frequency: int) -> None:
        self.feed, self.repartitioner, self.workers, self.frequency = feed, repartitioner, workers, frequency

    def of(self, epoch: int) -> Iterator[list[Round]]:
        ranges = self.feed.ranges(self.repartitioner, epoch, self.workers)
        counts = [len(self.feed.sizes(partition.rows)) for partition in ranges]
        return (
            [
                Round(epoch, number, partition, first, min(self.frequency, count - first))
                for partition, count in zip(ranges, counts, strict=True)
                if first < count
            ]
            for number, first in enumerate(range(0, max(counts), self.frequency), self.feed.done(epoch))
        )

    def after(self, epoch: int, number: int) -> Cursor | None:
        first = (number + 1 - self.feed.done(epoch)) * self.frequency
        ranges = self.feed.ranges(self.repartitioner, epoch, self.workers)
        left = tuple(self.feed.rest(partition, epoch, first) for partition in ranges)
        return Cursor(epoch, number + 1, self.workers, left) if any(left) else None


class CellRounds(Rounds):
    """Rounds over an engine's own collection (the Direct approach).

    The rows are brought once into cells, one for each worker and round, which stay in the engine's
    cache. An epoch has an order of its own over each worker's cells and over the rows of each cell.
    """

    task = staticmethod(train_cell)

    def __init__(
        self,
        collection: NativeCollection,
        executor: Executor,
        feed: Feed,
        repartitioner: Repartitioner,
        workers: int,
        frequency: int,
        *,
        storage_level: str | None,
    ) -> None:
        self._collection, self._feed = collection, feed
        part_rows = collection.counts(executor)
        plan = repartitioner.plan(part_rows, workers=workers, batch_size=feed.batch_size, seed=feed.seed)
        rows_of_cells = [_cells_of(feed.sizes(part.rows), frequency) for part in ranges_of(plan, workers)]
        self.ranks = tuple(rank for rank, cells in enumerate(rows_of_cells) for _ in cells)
        sizes = [rows for cells in rows_of_cells for rows in cells]
        self._cells = collection.arrange(executor, sizes, storage_level)
        self._of_rank = [[i for i, owner in enumerate(self.ranks) if owner == rank] for rank in range(workers)]
        self._rounds = max(map(len, self._of_rank), default=0)

    def of(self, epoch: int) -> Iterator[list[Any]]:
        orders = [self._shuffled(cells, epoch, rank) for rank, cells in enumerate(self._of_rank)]
        return (
            [self._cells[order[number]] for order in orders if number < len(order)]
            for number in range(self._feed.done(epoch), self._rounds)
        )

    def after(self, epoch: int, number: int) -> Cursor | None:
        return Cursor(epoch, number + 1, len(self._of_rank)) if number + 1 < self._rounds else None

    def _shuffled(self, cells: Sequence[int], epoch: int, rank: int) -> list[int]:
        if not self._feed.shuffle:
            return list(cells)
        return [int(cell) for cell in np.random.default_rng([self._feed.seed, epoch, rank]).permutation(cells)]

    def close(self) -> None:
        self._collection.release()


def _cells_of(sizes: Sequence[int], frequency: int) -> list[int]:
    """Return the rows of each round of a worker with these minibatches."""
    return [sum(sizes[first : first + frequency]) for first in range(0, len(sizes), frequency)]
