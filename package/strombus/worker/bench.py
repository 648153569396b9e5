"""What a worker process keeps between the rounds of one fit: a replica and open streams of minibatches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby, islice
from typing import Any, Literal

import numpy as np

from strombus.data import Source, Window, cut_order, endless_order, read_batches, stretches
from strombus.errors import DataError
from strombus.executors.calls import return_freed_memory
from strombus.networks import Network, Replica
from strombus.partitioning import EqualRepartitioner, Repartitioner, batch_sizes, ranges_of
from strombus.types import Cursor, DataSet, EpochLength, MultiDataSet, NetworkState, Partition
from strombus.types.cursor import Span

__all__ = ["Feed", "Workbench", "let_go"]


@dataclass(frozen=True)
class Feed:
    """How the rows of an epoch become minibatches; the same on every worker.

    Parameters
    ----------
    source : Source or None
        None where an engine holds the rows.
    batch_size, prefetch, seed : int
    last_batch : {"balance", "keep"}
    shuffle : bool
    keep_parts : bool
        Whether the order keeps each part's rows together.
    cursor : Cursor or None
        Where a fit goes on: of its epoch only the rows that were left are trained.
    length : EpochLength or None
        Where epochs end after so many steps: each takes as many rows of the passes over the data put end to end.
    """

    source: Source | None
    batch_size: int
    seed: int
    prefetch: int = 0
    last_batch: Literal["balance", "keep"] = "balance"
    shuffle: bool = True
    keep_parts: bool = False
    cursor: Cursor | None = None
    length: EpochLength | None = None

    def sizes(self, rows: int) -> list[int]:
        """Return the minibatch sizes of a partition of `rows` rows."""
        return batch_sizes(rows, self.batch_size, self.last_batch)

    def order(self, epoch: int) -> tuple[Window, ...]:
        """Return the order of the rows in `epoch`."""
        order = self._pass(epoch) if self.length is None else self._stretch(epoch, self.length.rows)
        return cut_order(order, self._left()) if self._goes_on(epoch) else order

    def _pass(self, number: int) -> tuple[Window, ...]:
        assert self.source is not None
        return self.source.order(seed=self.seed, epoch=number, shuffle=self.shuffle, keep_parts=self.keep_parts)

    def _stretch(self, epoch: int, rows: int) -> tuple[Window, ...]:
        assert self.source is not None
        seed = self.seed if self.shuffle else None
        return endless_order(self._pass, self.source.rows, epoch * rows, (epoch + 1) * rows, seed)

    def _goes_on(self, epoch: int) -> bool:
        return self.cursor is not None and self.cursor.epoch == epoch and bool(self.cursor.left)

    def _left(self) -> list[Span]:
        assert self.cursor is not None
        return [span for spans in self.cursor.left for span in spans]

    def done(self, epoch: int) -> int:
        """Return the rounds or steps of `epoch` that were taken before this fit went on."""
        return self.cursor.number if self.cursor is not None and self.cursor.epoch == epoch else 0

    def rest(self, partition: Partition, epoch: int, first: int) -> tuple[Span, ...]:
        """Return where the rows of `partition` from minibatch `first` on lie in the whole order of `epoch`."""
        start = partition.start + sum(self.sizes(partition.rows)[:first])
        if self._goes_on(epoch):
            return stretches(self._left(), start, partition.stop)
        return ((start, partition.stop),) if start < partition.stop else ()

    def ranges(self, repartitioner: Repartitioner, epoch: int, workers: int) -> tuple[Partition, ...]:
        """Return the stretch of the epoch's order that each rank trains.

        Where a fit goes on with as many workers as before, each has what was left of its own rows.
        """
        if self._goes_on(epoch) and self.cursor is not None:
            left = [sum(stop - start for start, stop in spans) for spans in self.cursor.left]
            if len(left) == workers:
                stops = list(accumulate(left))
                return tuple(Partition(rank, stop - left[rank], stop) for rank, stop in enumerate(stops))
            return self._evenly(sum(left), workers)
        if self.length is not None:
            return self._evenly(self.length.rows, workers)
        by_part = groupby(self.order(epoch), key=lambda window: window.blocks[0].part if self.keep_parts else 0)
        part_rows = [sum(window.rows for window in windows) for _, windows in by_part]
        plan = repartitioner.plan(part_rows, workers=workers, batch_size=self.batch_size, seed=self.seed + epoch)
        return ranges_of(plan, workers)

    def _evenly(self, rows: int, workers: int) -> tuple[Partition, ...]:
        plan = EqualRepartitioner().plan([rows], workers=workers, batch_size=self.batch_size, seed=self.seed)
        return ranges_of(plan, workers)

    def of_cell(self, rows: DataSet | MultiDataSet, epoch: int, cell: int) -> Iterator[DataSet | MultiDataSet]:
        """Yield the minibatches of a cell that an engine holds, in the epoch's order."""
        order = np.random.default_rng([self.seed, epoch, cell]).permutation(len(rows)) if self.shuffle else None
        start = 0
        for size in self.sizes(len(rows)):
            span = slice(start, start + size)
            yield rows[span] if order is None else rows[order[span]]
            start += size

    def open(self, epoch: int, partition: Partition, first: int) -> Any:
        """Open the minibatches of `partition` from number `first` on."""
        assert self.source is not None
        order = self.order(epoch)
        sizes = self.sizes(partition.rows)
        start = partition.start + sum(sizes[:first])
        return read_batches(
            self.source,
            order,
            start,
            partition.stop,
            sizes[first:],
            seed=self.seed,
            epoch=epoch,
            shuffle=self.shuffle,
            prefetch=self.prefetch,
        )


def let_go(source: Source) -> None:
    """Give back what a pass over more data than is kept has left in memory: Dask pauses workers that hold too much."""
    if source.release_part():
        return_freed_memory()


class _Stream:
    """An open reader and where it stands."""

    def __init__(self, feed: Feed, epoch: int, partition: Partition, first: int) -> None:
        self.key = (epoch, partition)
        self.position = first
        self.end = len(feed.sizes(partition.rows))
        assert feed.source is not None
        self._source, self._reader = feed.source, feed.open(epoch, partition, first)
        self._batches = iter(self._reader)

    def take(self, count: int) -> Iterator[DataSet | MultiDataSet]:
        for batch in islice(self._batches, count):
            self.position += 1
            yield batch

    def close(self) -> None:
        self._reader.close()
        let_go(self._source)


class Workbench:
    """One replica and the open streams of a fit in one process.

    It travels empty: each process that a fit's job reaches fills its own. One task at a time works
    on it, so that two tasks in threads of one process do not share a module.
    """

    def __init__(self) -> None:
        self._start_empty()

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._replica: Replica | None = None
        self._held: NetworkState | None = None
        self._streams: dict[int, _Stream] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._start_empty()

    @contextmanager
    def replica_of(self, network: Network) -> Iterator[Replica]:
        """Lend this process's replica of `network` to one task."""
        with self._lock:
            if self._replica is None:
                self._replica = network.replica()
            yield self._replica

    def load(self, state: NetworkState) -> None:
        """Bring the replica to `state`, unless that is what it holds: with one worker a mean is its own state."""
        assert self._replica is not None
        if state is not self._held or state.updater is None:
            self._replica.load(state)
        self._held = None  # until the round that begins now is over

    def holds(self, state: NetworkState) -> None:
        """Take note that `state` is the replica's, copied out whole."""
        self._held = state

    def batches(
        self, feed: Feed, epoch: int, partition: Partition, first: int, count: int
    ) -> Iterator[DataSet | MultiDataSet]:
        """Yield minibatches `first` to ``first + count`` of a partition, going on with its open stream."""
        stream = self._streams.get(partition.rank)
        if stream is None or stream.key != (epoch, partition) or stream.position != first:
            if stream is not None:
                stream.close()
            stream = self._streams[partition.rank] = _Stream(feed, epoch, partition, first)
        try:
            yield from stream.take(count)
            if stream.position != first + count:
                raise DataError(f"worker {partition.rank} got {stream.position - first} of {count} minibatches")
        except BaseException:
            # A stream that failed, or whose training did, is not gone on with: a second run opens its own.
            if self._streams.get(partition.rank) is stream:
                del self._streams[partition.rank]
            stream.close()
            raise
        if stream.position >= stream.end:
            self._streams.pop(partition.rank).close()

    def close(self) -> None:
        """Close the open streams."""
        while self._streams:
            self._streams.popitem()[1].close()

    def __del__(self) -> None:
        self.close()
