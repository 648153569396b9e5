"""Rows of an epoch's order as minibatches, decoded ahead of the consumer by one thread."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Self

import numpy as np

from strombus.data.order import Window, window_rows
from strombus.data.rows import Rows, concatenate
from strombus.data.source import Source
from strombus.errors import ConfigurationError, DataError
from strombus.types import Block, Columns, DataSet, MultiDataSet, from_columns

__all__ = ["BatchReader", "read_batches"]

_log = logging.getLogger(__name__)


def read_batches(
    source: Source,
    order: Sequence[Window],
    start: int,
    stop: int,
    sizes: Iterable[int],
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    prefetch: int = 2,
    timeout: float = 600.0,
) -> BatchReader:
    """Read rows `start` to `stop` of an epoch's order as minibatches.

    Parameters
    ----------
    source : Source
    order : sequence of Window
        From `epoch_order` with the same seed, epoch and shuffle.
    start, stop : int
    sizes : iterable of int
        Rows of each minibatch; their sum is ``stop - start``.
    prefetch : int
        Minibatches kept ready by a thread; 0 reads in the caller's thread.
    timeout : float
        Seconds to wait for one minibatch of the thread.

    Returns
    -------
    BatchReader
        An iterator of `DataSet` or `MultiDataSet`, and a context manager that stops the thread. The arrays
        of a minibatch are the reader's own copies, never the source's memory.

    Raises
    ------
    ConfigurationError
        When the span lies outside the order, or the sizes do not add up to it.
    DataError
        From ``next``: when a part cannot be read, or a transform changes the number of rows.
    """
    sizes = list(sizes)
    total = order[-1].stop if order else 0
    if not 0 <= start <= stop <= total or sum(sizes) != stop - start or min(sizes, default=1) < 1 or prefetch < 0:
        raise ConfigurationError(
            f"a span of the {total} rows of the order and positive sizes that add up to it are needed, "
            f"got rows {start} to {stop}, {len(sizes)} sizes with the sum {sum(sizes)}, prefetch {prefetch}"
        )
    spans = (
        _Filling(source, window, max(start, window.start), min(stop, window.stop), (seed, epoch, shuffle))
        for window in order
        if window.start < stop and window.stop > start
    )
    return BatchReader(_Maker(source, spans, deque(sizes)), prefetch, timeout)


class _Filling:
    """Rows `start` to `stop` of the order, inside one window, filled block by block."""

    def __init__(
        self, source: Source, window: Window, start: int, stop: int, permutation: tuple[int, int, bool]
    ) -> None:
        self._source = source
        self.rows = stop - start
        self.columns: Columns = {n: np.empty((self.rows, *c.shape), c.dtype) for n, c in source.columns.items()}
        wanted = window_rows(window, *permutation)[start - window.start : stop - window.start]
        self._todo = deque(_contiguous(window, wanted) if not permutation[2] else _scattered(window, wanted))

    def step(self) -> bool:
        """Read one block, once, and put its rows where they belong; False when nothing is left to do."""
        if not self._todo:
            return False
        block, places, rows = self._todo.popleft()
        for name, array in self._source.read(block).items():
            self.columns[name][places] = array if rows is None else array[rows]
        return True


def _contiguous(window: Window, wanted: Any) -> Iterator[tuple[Block, Any, Any]]:
    """Plan an unshuffled window, which has one block: slices cost less than indices."""
    yield window.blocks[0], slice(None), slice(int(wanted[0]), int(wanted[-1]) + 1)


def _scattered(window: Window, wanted: Any) -> Iterator[tuple[Block, Any, Any]]:
    """Plan which rows of each block go to which places; a block that is wanted whole needs no gather."""
    places = np.argsort(wanted)
    rows = wanted[places]
    first = 0
    for block in window.blocks:
        low, high = np.searchsorted(rows, (first, first + block.rows))
        if high > low:
            whole = high - low == block.rows
            yield block, places[low:high], None if whole else rows[low:high] - first
        first += block.rows


class _Maker:
    """Minibatches as views of filled windows; the next window can be filled in small steps."""

    def __init__(self, source: Source, spans: Iterator[_Filling], sizes: deque[int]) -> None:
        self._source = source
        self._spans = spans
        self._sizes = sizes
        self._layout = source.layout
        self._current: Columns = {}
        self._at = self._end = 0
        self._next: _Filling | None = None

    def ahead(self) -> bool:
        """Do one step of the window after the current one; False when there is none to do."""
        if self._next is None:
            self._next = next(self._spans, None)
        return self._next is not None and self._next.step()

    def make(self) -> Rows | None:
        """Return the next minibatch, None after the last."""
        if not self._sizes:
            return None
        size = self._sizes.popleft()
        pieces: list[Columns] = []
        while size:
            if self._at == self._end:
                self._turn()
            taken = slice(self._at, min(self._end, self._at + size))
            pieces.append({name: array[taken] for name, array in self._current.items()})
            size -= taken.stop - taken.start
            self._at = taken.stop
        return self._transformed(from_columns(self._layout.kind, concatenate(self._layout, pieces)))

    def _turn(self) -> None:
        while self.ahead():
            pass
        assert self._next is not None, "the spans cover the sizes"
        self._current, self._at, self._end = self._next.columns, 0, self._next.rows
        self._next = None

    def _transformed(self, batch: Rows) -> Rows:
        if self._source.transform is None:
            return batch
        made = self._source.transform(batch)
        if not isinstance(made, DataSet | MultiDataSet) or made.examples != batch.examples:
            got = f"{made.examples} rows" if isinstance(made, DataSet | MultiDataSet) else f"a {type(made).__name__}"
            raise DataError(
                f"a transform must return a DataSet or MultiDataSet of as many rows as it was given "
                f"({batch.examples}), got {got}"
            )
        return made


class _Ahead:
    """The thread's state: keeps `depth` minibatches ready, and uses the time in which they are to fill a window."""

    def __init__(self, maker: _Maker, depth: int) -> None:
        self.maker = maker
        self.depth = depth
        self.ready: deque[Rows] = deque()
        self.changed = Condition()
        self.ended = self.stopped = False
        self.error: BaseException | None = None

    def run(self) -> None:
        """Work until the data ends, something fails, or the consumer stops."""
        try:
            while self._go_on():
                batch = self.maker.make()
                if batch is None:
                    break
                with self.changed:
                    self.ready.append(batch)
                    self.changed.notify_all()
        except BaseException as error:
            self.error = error
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _go_on(self) -> bool:
        """Wait for room, working ahead meanwhile; False when the consumer has stopped."""
        while not self.stopped and len(self.ready) >= self.depth:
            if not self.maker.ahead():
                with self.changed:
                    self.changed.wait_for(lambda: self.stopped or len(self.ready) < self.depth)
        return not self.stopped

    def take(self, timeout: float) -> Rows | None:
        """Return the next minibatch, None after the last; raise the thread's error after what came before it."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.ready or self.ended, timeout):
                raise DataError(f"no minibatch was read within {timeout:g} s; is the storage reachable? (timeout)")
            if self.ready:
                self.changed.notify_all()
                return self.ready.popleft()
        if self.error is not None:
            raise self.error
        return None

    def stop(self) -> None:
        """Tell the thread to end."""
        with self.changed:
            self.stopped = True
            self.ready.clear()
            self.changed.notify_all()


class BatchReader(Iterator[Rows]):
    """Minibatches in order; made by `read_batches`. Close it, or use it in a ``with`` block."""

    def __init__(self, maker: _Maker, prefetch: int, timeout: float) -> None:
        self._maker: _Maker | None = maker
        self._timeout = timeout
        self._ahead: _Ahead | None = None
        if prefetch:
            # The thread knows only its state, so that a forgotten reader is collected, which ends the thread.
            self._ahead = _Ahead(maker, prefetch)
            self._finalizer = weakref.finalize(self, self._ahead.stop)
            self._thread = Thread(target=self._ahead.run, name="strombus-reader", daemon=True)
            self._thread.start()

    def __next__(self) -> Rows:
        if self._maker is None:
            raise StopIteration
        batch = self._maker.make() if self._ahead is None else self._ahead.take(self._timeout)
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def close(self) -> None:
        """End the thread and forget the data; a second call does nothing."""
        if self._maker is None:
            return
        self._maker = None
        if self._ahead is not None:
            self._finalizer()
            self._thread.join(self._timeout)
            if self._thread.is_alive():
                _log.warning("the reader's thread did not end within %g s: a read or a transform hangs", self._timeout)
            self._ahead = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
