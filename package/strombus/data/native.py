"""Collections that an engine holds: what the Bag, the dask arrays, the RDD and the DataFrames have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from strombus.data.rows import Rows, iterate_rows, load_cell
from strombus.errors import ConfigurationError, DataError
from strombus.types import NativePartition

__all__ = [
    "Cut",
    "NativeCollection",
    "count_cell",
    "count_objects",
    "count_rows",
    "cut_rows",
    "join_cuts",
    "open_cell",
    "plan_cells",
]


class Cut(NamedTuple):
    """Rows ``start`` to ``stop`` of a partition, and the cell they go to."""

    partition: int
    start: int
    stop: int
    cell: int


class NativeCollection(ABC):
    """Rows in the partitions of an engine's own collection.

    Attributes
    ----------
    engine : {"dask", "spark", "spark-connect"}
    """

    engine: str
    _counts: list[int] | None = None

    @abstractmethod
    def partitions(self) -> list[NativePartition]:
        """Return the partitions in order; each opens as an iterable of `DataSet` or `MultiDataSet`."""

    def objects(self) -> list[NativePartition]:
        """Return the partitions as they came, keys included where objects have some."""
        return self.partitions()

    @property
    def lazy(self) -> bool:
        """Whether this is a collection of objects, which `apply` makes another one of; arrays and tables are not."""
        return False

    @property
    def keyed(self) -> bool:
        """Whether this is a table with a column of keys: `objects` then gives `KeyedRows`."""
        return False

    def apply(self, function: Callable[[Any, Iterable[Any]], Iterable[Any]], shared: Any) -> Any:
        """Return a lazy collection of the same kind, whose partitions hold ``function(shared.get(), objects)``."""
        raise NotImplementedError(f"{type(self).__name__} is no collection of objects")

    def counts(self, executor: Any) -> list[int]:
        """Return the rows of each partition; the first call is one pass over the data on the engine."""
        if self._counts is None:
            self._counts = [int(count) for count in executor.map(count_rows, self.partitions())]
        return list(self._counts)

    def arrange(self, executor: Any, sizes: Sequence[int], storage_level: str | None = None) -> list[NativePartition]:
        """Redistribute the rows, in order, into cells of exactly these numbers of rows.

        Parameters
        ----------
        executor : Executor
            Of the engine that holds the collection.
        sizes : sequence of int
            Rows of each cell, at least 1; their sum is that of `counts`.
        storage_level : str, optional
            Spark's cache for the cells: a level's name, DL4J's ``MEMORY_ONLY_SER`` among them. Dask has one cache.

        Returns
        -------
        list of NativePartition
            In the engine's cache until `release`; `open_cell` gives a cell's number and rows.

        Raises
        ------
        ConfigurationError
            When the sizes do not fit the rows.
        """
        self.release()
        counts = self.counts(executor)
        if min(sizes, default=0) < 1 or sum(sizes) != sum(counts):
            raise ConfigurationError(
                f"cells need sizes of at least 1 that add up to the {sum(counts)} rows of the data, "
                f"got {len(sizes)} sizes with the sum {sum(sizes)}"
            )
        return self._arrange(executor, plan_cells(counts, sizes), list(sizes), storage_level)

    @abstractmethod
    def _arrange(
        self, executor: Any, cuts: list[Cut], sizes: list[int], storage_level: str | None
    ) -> list[NativePartition]:
        """Bring the cuts into their cells."""

    @abstractmethod
    def release(self) -> None:
        """Drop what `arrange` holds in the engine's cache; a second call does nothing."""


def open_cell(opened: Any) -> tuple[int, Rows]:
    """Return number and rows of a cell, whether the engine gave the pair or an iterator over it."""
    # To the end: PySpark throws a worker process away whose task left its partition unread.
    number, rows = opened if isinstance(opened, tuple) else list(opened)[0]  # noqa: RUF015
    return int(number), rows


def count_cell(_shared: Any, opened: Any) -> int:
    """Count the rows of a cell; a task, which leaves the cell in the engine's cache."""
    return open_cell(opened)[1].examples


def plan_cells(counts: Sequence[int], sizes: Sequence[int]) -> list[Cut]:
    """Say which rows of which partition go to which cell, both in order; `counts` and `sizes` have one sum."""
    cuts: list[Cut] = []
    ends = np.cumsum(sizes)
    first = cell = 0
    for partition, count in enumerate(counts):
        at = 0
        while at < count:
            stop = min(count, int(ends[cell]) - first)
            cuts.append(Cut(partition, at, stop, cell))
            at = stop
            cell += first + at == ends[cell]
        first += count
    return cuts


def count_objects(_shared: Any, partition: Any) -> tuple[int, int]:
    """Count objects and rows of one opened partition; a task."""
    sizes = [rows.examples for rows in iterate_rows(partition)]
    return len(sizes), sum(sizes)


def count_rows(_shared: Any, partition: Any) -> int:
    """Count the rows of one opened partition; a task."""
    return sum(rows.examples for rows in iterate_rows(partition))


def cut_rows(partition: Any, cuts: Sequence[Cut]) -> Iterator[tuple[Cut, int, Rows]]:
    """Yield, for an opened partition, (cut, place of the piece in the partition, piece) in order."""
    at = 0
    for rows in iterate_rows(partition):
        for cut in cuts:
            start, stop = max(cut.start - at, 0), min(cut.stop - at, rows.examples)
            if start < stop:
                yield cut, at + start, rows[start:stop]
        at += rows.examples
    wanted = max((cut.stop for cut in cuts), default=0)
    if at < wanted:
        raise DataError(
            f"a partition gave {at} rows where it had {wanted} before: the collection is not repeatable; "
            f"persist or checkpoint it first"
        )


def join_cuts(pieces: Iterable[Rows], size: int) -> Rows:
    """Return a cell's pieces as one object and check that none is lost."""
    cell = load_cell(list(pieces))
    if cell.examples != size:
        raise DataError(
            f"a cell got {cell.examples} rows where {size} were planned: the collection is not repeatable; "
            f"persist or checkpoint it first"
        )
    return cell
