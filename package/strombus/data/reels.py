"""Streams on the workers: what they are like, and where in them each worker is."""

from __future__ import annotations

import importlib
import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from strombus.data.reader import BatchReader
from strombus.data.rows import Layout, Rows, concatenate
from strombus.data.source import Source, Transform
from strombus.data.streams import Stream
from strombus.errors import DataError
from strombus.types import Block, Columns
from strombus.types.cursor import Span

__all__ = ["Reel", "StreamSource", "look_at", "read_stream"]

_log = logging.getLogger(__name__)

_TELLING = threading.Lock()  # torch has one place for who a worker is in a process
_LONG = 1000
"""Rows that are passed over without a word."""
_AT_ONCE = 256
"""Single examples that are passed over at once."""


class _Told:
    """What ``torch.utils.data.get_worker_info()`` returns, and whether anybody has asked it who he is."""

    def __init__(self, dataset: Any, rank: int, workers: int, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self._rank, self._workers = rank, workers
        self.asked = False

    @property
    def id(self) -> int:
        self.asked = True
        return self._rank

    @property
    def num_workers(self) -> int:
        self.asked = True
        return self._workers


@contextmanager
def _telling(told: _Told | None) -> Iterator[None]:
    """Have torch tell a dataset which worker it is on, as it does in the processes of a DataLoader."""
    if told is None:
        yield
        return
    worker: Any = importlib.import_module("torch.utils.data._utils.worker")

    with _TELLING:
        before, worker._worker_info = worker._worker_info, told
        try:
            yield
        finally:
            worker._worker_info = before


def look_at(stream: Stream, workers: int) -> tuple[Layout, bool] | None:
    """Return what the first item of a stream is like, and whether each worker has rows of its own; None: it is empty.

    A task; `stream` is shared with the workers.
    """
    told = _Told(stream.make, 0, workers, 0) if stream.dataset and stream.sharded is None else None
    with _telling(told):
        item = next(stream.open(0, workers), None)
    if item is None:
        return None
    sharded = told.asked if told is not None else bool(stream.sharded)
    return Layout.of(stream.rows_of([item])), sharded


class StreamSource(Source):
    """A stream as the data of a fit.

    Parameters
    ----------
    stream : Stream
    layout : Layout
        Of its first item, which all others must have too.
    sharded : bool
        Whether each worker has rows of its own.
    rows : int
        Of an epoch.
    transform : callable, optional
    """

    def __init__(
        self, stream: Stream, layout: Layout, sharded: bool, rows: int, transform: Transform | None = None
    ) -> None:
        self.stream, self.sharded, self.transform = stream, sharded, transform
        self.kind, self.columns = layout.kind, layout.columns
        self.part_rows = (rows,)

    @property
    def mark(self) -> str:
        """That it is a stream, and how it is dealt."""
        return "a sharded stream" if self.sharded else "a stream"

    def blocks(self) -> tuple[Block, ...]:
        """Return an epoch as one block."""
        return (Block(0, 0, self.rows),)

    def read(self, block: Block) -> Columns:
        """Raise a DataError: see `read_stream`."""
        raise DataError("a stream can be gone through, and not read in blocks; export it (strombus.data.export)")


class Reel:
    """A stream that is open in one process, and goes on where it was.

    When it is exhausted it begins again.

    Parameters
    ----------
    source : StreamSource
    rank, workers : int
    seed : int
        The fit's.
    """

    def __init__(self, source: StreamSource, rank: int, workers: int, seed: int) -> None:
        self._source, self._rank, self._workers = source, rank, workers
        self._single = source.stream.dataset
        tells = self._single and source.sharded
        self._told = _Told(source.stream.make, rank, workers, seed + rank) if tells else None
        self._begin()

    def _begin(self) -> None:
        self._items: Iterator[Any] | None = None
        self._rows: Rows | None = None
        self._used = 0  # of these
        self._position = self._since = 0

    def take(self, start: int, count: int) -> list[Columns]:
        """Return rows `start` to ``start + count``, counted from the beginning of the stream and on through its passes.

        Raises
        ------
        DataError
            When items differ, or there are none.
        """
        if start < self._position:
            self._begin()
        if start - self._position > _LONG and not self._position:
            _log.warning(
                "worker %d passes over the first %d rows of the stream: others have them, or they were trained before",
                self._rank,
                start,
            )
        while self._position < start:
            if self._single and self._rows is None:
                self._position += len(self._items_ahead(min(start - self._position, _AT_ONCE)))
            else:
                self._next(start - self._position)
        found: list[Columns] = []
        while count:
            rows = self._next(count)
            found.append({name: array.copy() for name, array in rows.columns().items()})  # it may be filled again
            count -= rows.examples
        return found

    def _next(self, most: int) -> Rows:
        """Return the next rows, at least one and at most so many."""
        while self._rows is None:
            rows = self._checked(self._items_ahead(most))
            self._rows, self._used = (rows if rows.examples else None), 0
        taken = self._rows[self._used : self._used + most]
        self._used += taken.examples
        self._position += taken.examples
        if self._used == self._rows.examples:
            self._rows = None  # the next one may be asked for much later
        return taken

    def _items_ahead(self, most: int) -> list[Any]:
        """Return the next item, or items that are single examples, at most so many."""
        with _telling(self._told):
            self._items = self._source.stream.open(self._rank, self._workers) if self._items is None else self._items
            found = list(islice(self._items, most if self._single else 1))
        if found:
            return found
        if self._position == self._since:
            raise DataError(f"the stream of worker {self._rank} ended without any rows after {self._position} rows")
        _log.debug("worker %d: the stream is exhausted after %d rows, and begins again", self._rank, self._position)
        self._items, self._since = None, self._position
        return self._items_ahead(most)

    def _checked(self, items: list[Any]) -> Rows:
        rows, layout = self._source.stream.rows_of(items), self._source.layout
        found = layout.merge(Layout.of(rows), ("the first item of the stream", f"that at row {self._position}"))
        if found.columns.keys() != layout.columns.keys():
            raise DataError(
                f"the item of the stream at row {self._position} has a mask, the first one had none: give all items "
                "masks, or none"
            )
        return rows


class _Windows:
    """The rows of some spans of a reel, minibatch by minibatch."""

    def __init__(self, reel: Reel, layout: Layout, spans: Sequence[Span], sizes: Sequence[int]) -> None:
        self._reel, self._layout = reel, layout
        self._spans, self._sizes = deque(spans), deque(sizes)

    def ahead(self) -> bool:
        """Say that nothing can be done of a minibatch before it is made."""
        return False

    def take(self) -> Columns | None:
        """Return the next minibatch, None after the last."""
        if not self._sizes:
            return None
        wanted = self._sizes.popleft()
        pieces: list[Columns] = []
        while wanted:
            start, stop = self._spans.popleft()
            taken = min(wanted, stop - start)
            pieces += self._reel.take(start, taken)
            wanted -= taken
            if start + taken < stop:
                self._spans.appendleft((start + taken, stop))
        return concatenate(self._layout, pieces)


def read_stream(
    source: StreamSource, reel: Reel, spans: Sequence[Span], sizes: Sequence[int], *, prefetch: int, timeout: float
) -> BatchReader:
    """Read spans of a stream as minibatches; see `strombus.data.read_batches`.

    Parameters
    ----------
    spans : sequence of (int, int)
        Rows counted from the beginning of the stream, ascending.
    sizes : sequence of int
        Their sum is the spans'.
    """
    windows = _Windows(reel, source.layout, spans, sizes)
    return BatchReader(source, windows, deque(sizes), prefetch, timeout)
