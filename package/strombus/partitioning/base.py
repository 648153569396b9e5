"""The interface of a repartitioner, and the arithmetic that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from strombus.errors import ConfigurationError
from strombus.types import Partition

__all__ = ["Repartitioner", "cut_evenly", "deal", "ranges_of"]


class Repartitioner(BaseModel, ABC):
    """Cut the rows of an epoch into partitions and give each to a worker (DL4J: ``Repartitioner``).

    A plan covers every row exactly once, in order; the partitions of one worker are neighbours, so
    that a worker reads one stretch of the data. The same arguments give the same plan.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )

    name: ClassVar[str]
    """Key in `repartitioners`, and the name of the file."""

    keeps_parts: ClassVar[bool] = False
    """Whether the parts the data came in stay whole; the epoch's order then never mixes them."""

    @abstractmethod
    def _partition_rows(self, part_rows: Sequence[int], workers: int, batch_size: int, seed: int) -> list[int]:
        """Return the rows of each partition, in order."""

    def plan(self, part_rows: Sequence[int], *, workers: int, batch_size: int, seed: int = 0) -> tuple[Partition, ...]:
        """Plan one epoch.

        Parameters
        ----------
        part_rows : sequence of int
            Rows of each part of the data, in the epoch's order.
        workers : int
            Ranks to deal to, at least 1.
        batch_size : int
            Rows of a minibatch, at least 1.
        seed : int
            Decides who gets the odd rows.

        Returns
        -------
        tuple of Partition
            Without empty ones; ranks ascend.

        Raises
        ------
        ConfigurationError
            When `workers` or `batch_size` is below 1.
        """
        if workers < 1:
            raise ConfigurationError(f"workers must be at least 1, got {workers}")
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
        return deal([rows for rows in self._partition_rows(part_rows, workers, batch_size, seed) if rows], workers)


def cut_evenly(rows: int, pieces: int) -> list[int]:
    """Cut `rows` into `pieces` that differ by at most one, the larger ones first."""
    size, larger = divmod(rows, pieces)
    return [size + 1] * larger + [size] * (pieces - larger)


def deal(sizes: Sequence[int], workers: int) -> tuple[Partition, ...]:
    """Give runs of neighbouring partitions to the ranks, so that their row counts come out close."""
    count, total, start, partitions = len(sizes), sum(sizes), 0, []
    even = not sizes or max(sizes) - min(sizes) <= 1
    for index, rows in enumerate(sizes):
        if even:
            # Larger sizes come first, so the later ranks take the extra partition where there is one.
            rank = _rank_of(index, count, workers)
        else:
            rank = min(workers - 1, (2 * start + rows) * workers // (2 * total))
        partitions.append(Partition(rank, start, start + rows))
        start += rows
    return tuple(partitions)


def _rank_of(index: int, count: int, workers: int) -> int:
    fewer, extra = divmod(count, workers)
    short_ranks = workers - extra
    if index < short_ranks * fewer or not extra:
        return index // fewer
    return short_ranks + (index - short_ranks * fewer) // (fewer + 1)


def ranges_of(partitions: Sequence[Partition], workers: int) -> tuple[Partition, ...]:
    """Join each rank's neighbouring partitions; one entry per rank, empty where it has no rows."""
    ranges = []
    for rank in range(workers):
        mine = [partition for partition in partitions if partition.rank == rank]
        start = mine[0].start if mine else 0
        ranges.append(Partition(rank, start, mine[-1].stop if mine else start))
    return tuple(ranges)
