"""How a stream is dealt to the workers: who trains which rows of an epoch, and from where it is gone on with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from strombus.data import Reel, StreamSource, read_stream, stretches
from strombus.errors import DataError
from strombus.partitioning import Repartitioner
from strombus.types import Partition
from strombus.types.cursor import Span
from strombus.worker.bench import Feed

__all__ = ["Reels", "StreamFeed"]

_TIMEOUT = 600.0


class Reels:
    """The streams that are open in one process, which go on from epoch to epoch; they travel closed."""

    def __init__(self) -> None:
        self._open: dict[int, Reel] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open = {}

    def of(self, source: StreamSource, rank: int, workers: int, seed: int) -> Reel:
        """Return the stream of a rank, begun when it is first asked for."""
        if rank not in self._open:
            self._open[rank] = Reel(source, rank, workers, seed)
        return self._open[rank]


@dataclass(frozen=True)
class StreamFeed(Feed):
    """The feed of a `StreamSource`, in the order in which it comes.

    Of one stream for all, every worker trains each n-th minibatch, so that an epoch's rows are the same for any number
    of workers: spans count its rows over all workers. Where each worker has a stream of its own, they count those of
    the worker alone.

    Parameters
    ----------
    workers : int
    reels : Reels
    """

    workers: int = 1
    reels: Reels = field(default_factory=Reels, compare=False)

    def ranges(self, repartitioner: Repartitioner, epoch: int, workers: int) -> tuple[Partition, ...]:
        """Return each rank's rows, as if they lay one rank's after the other's."""
        rows = [_rows(self._spans(epoch, rank)) for rank in range(workers)]
        stops = list(accumulate(rows))
        return tuple(Partition(rank, stop - rows[rank], stop) for rank, stop in enumerate(stops))

    def rest(self, partition: Partition, epoch: int, first: int) -> tuple[Span, ...]:
        """Return which rows of `epoch` a rank trains from minibatch `first` on."""
        start = sum(self.sizes(partition.rows)[:first])
        return stretches(self._spans(epoch, partition.rank), start, partition.rows)

    def open(self, epoch: int, partition: Partition, first: int) -> Any:
        """Open the minibatches of `partition` from number `first` on."""
        assert isinstance(self.source, StreamSource)
        before = (epoch - self._length.began) * self._whole
        spans = [(before + start, before + stop) for start, stop in self.rest(partition, epoch, first)]
        reel = self.reels.of(self.source, partition.rank, self.workers, self.seed)
        sizes = self.sizes(partition.rows)[first:]
        return read_stream(self.source, reel, spans, sizes, prefetch=self.prefetch, timeout=_TIMEOUT)

    @property
    def _length(self) -> Any:
        assert self.length is not None
        return self.length

    @property
    def _sharded(self) -> bool:
        assert isinstance(self.source, StreamSource)
        return self.source.sharded

    @property
    def _whole(self) -> int:
        """Rows of an epoch: a worker's where each has its own stream, otherwise everybody's."""
        rows: int = self._length.rows
        return rows // self.workers if self._sharded else rows

    def _spans(self, epoch: int, rank: int) -> tuple[Span, ...]:
        """Return which rows of an epoch a rank trains, or what is left of them."""
        goes_on = self._goes_on(epoch)
        if not self._sharded:
            union = _joined(self._left()) if goes_on else [(0, self._whole)]
            return _every_nth(union, self.batch_size, rank, self.workers)
        if not goes_on:
            return ((0, self._whole),)
        assert self.cursor is not None
        if len(self.cursor.left) != self.workers:
            raise DataError(f"the streams of {len(self.cursor.left)} workers cannot go on with {self.workers}")
        return self.cursor.left[rank]


def _rows(spans: Iterable[Span]) -> int:
    return sum(stop - start for start, stop in spans)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, neighbours as one."""
    found: list[Span] = []
    for start, stop in sorted(spans):
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
    return found


def _every_nth(spans: list[Span], size: int, rank: int, workers: int) -> tuple[Span, ...]:
    """Return every n-th run of `size` rows of some spans put end to end, beginning with the `rank`-th."""
    found: list[Span] = []
    at = 0
    step = size * workers
    for start, stop in spans:
        # Run k of this rank has the rows from (k * workers + rank) * size on, counted over all spans.
        run = max(0, (at - rank * size) // step)
        while (first := run * step + rank * size) < at + stop - start:
            low, high = max(first, at), min(first + size, at + stop - start)
            if low < high:
                found.append((start + low - at, start + high - at))
            run += 1
        at += stop - start
    return tuple(found)
