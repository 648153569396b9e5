"""Rows of an epoch's order as minibatches, decoded ahead of the consumer by one thread."""

from __future__ import annotations

import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from strombus.data.order import Window
from strombus.data.rows import Rows, concatenate
from strombus.data.source import Source
from strombus.data.windows import Filling, Windows
from strombus.errors import ConfigurationError, DataError
from strombus.types import Columns, DataSet, MultiDataSet, from_columns

__all__ = ["BatchReader", "read_batches"]

T = TypeVar("T")

_LOOK = 0.2
"""Seconds of one wait for the thread; between two, whoever watches it is asked."""
_BRIEFLY = 1.0
"""Seconds in which the thread may end after a failure, which may be that it hangs."""

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
        0 reads in the caller's thread; otherwise a thread fills the next window while the current one is used,
        and where there is a transform keeps this number of transformed minibatches ready.
    timeout : float
        Seconds to wait for the thread.

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
    windows = Windows(source, order, start, stop, (seed, epoch, shuffle))
    return BatchReader(source, windows, deque(sizes), prefetch, timeout)


class _Batches:
    """Minibatches as views of windows, copied only where they straddle two."""

    def __init__(self, source: Source, windows: Callable[[], Columns | None], sizes: deque[int]) -> None:
        self._source = source
        self._windows = windows
        self._sizes = sizes
        self._layout = source.layout
        self._current: Columns = {}
        self._at = self._end = 0

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
        columns = pieces[0] if len(pieces) == 1 else concatenate(self._layout, pieces)
        return self._transformed(from_columns(self._layout.kind, columns))

    def _turn(self) -> None:
        self._current = {}  # so that three windows never exist at once
        window = self._windows()
        assert window is not None, "the spans cover the sizes"
        self._current, self._at, self._end = window, 0, len(next(iter(window.values())))

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


def _nobody(seconds: float) -> None:
    """Look at a wait when nobody watches."""


class _Ahead(Generic[T]):
    """The thread's state: keeps `depth` items ready, and uses the time in which they are to work further ahead."""

    def __init__(self, produce: Callable[[], T | None], ahead: Callable[[], bool], depth: int, timeout: float) -> None:
        self.timeout = timeout
        self.produce = produce
        self.ahead = ahead
        self.depth = depth
        self.ready: deque[T] = deque()
        self.changed = Condition()
        self.ended = self.stopped = False
        self.error: BaseException | None = None
        self.watch: Callable[[float], None] = _nobody

    def run(self) -> None:
        """Work until the data ends, something fails, or the consumer stops."""
        try:
            while self._go_on() and (item := self.produce()) is not None:
                with self.changed:
                    self.ready.append(item)
                    self.changed.notify_all()
                del item
        except BaseException as error:
            self.error = error
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _go_on(self) -> bool:
        """Wait for room, working ahead meanwhile; False when the consumer has stopped."""
        while not self.stopped and len(self.ready) >= self.depth:
            if not self.ahead():
                with self.changed:
                    self.changed.wait_for(lambda: self.stopped or len(self.ready) < self.depth)
        return not self.stopped

    def take(self) -> T | None:
        """Return the next item, None after the last; raise the thread's error after what came before it."""
        started = time.monotonic()
        with self.changed:
            while not self.changed.wait_for(lambda: self.ready or self.ended, min(_LOOK, self.timeout)):
                waited = time.monotonic() - started
                if waited >= self.timeout:
                    raise DataError(f"nothing was read within {self.timeout:g} s; is the storage reachable? (timeout)")
                self.watch(waited)
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

    def __init__(self, source: Source, windows: Filling, sizes: deque[int], prefetch: int, timeout: float) -> None:
        self._timeout = timeout
        self._thread: Thread | None = None
        self._ahead: _Ahead[Any] | None = None
        if not prefetch:
            self._make: Callable[[], Rows | None] | None = _Batches(source, windows.take, sizes).make
        elif source.transform is None:
            # A minibatch is a few views then: cheaper made here than handed over by a thread.
            filled = self._start(_Ahead[Columns](windows.take, bool, 1, timeout))
            self._make = _Batches(source, filled, sizes).make
        else:
            batches = _Batches(source, windows.take, sizes)
            self._make = self._start(_Ahead(batches.make, windows.ahead, prefetch, timeout))

    def _start(self, ahead: _Ahead[T]) -> Callable[[], T | None]:
        # The thread knows only its own state, so that a forgotten reader is collected, which ends the thread.
        self._finalizer = weakref.finalize(self, ahead.stop)
        self._ahead = ahead
        self._thread = Thread(target=ahead.run, name="strombus-reader", daemon=True)
        self._thread.start()
        return ahead.take

    def watch(self, look: Callable[[float], None], timeout: float) -> None:
        """Call `look` with the seconds that a wait for the thread has taken, several times a second.

        What it raises ends the wait, and the reader. A wait may take `timeout` seconds, where that is more than before.
        """
        self._timeout = max(self._timeout, timeout)
        if self._ahead is not None:
            self._ahead.timeout, self._ahead.watch = self._timeout, look

    def __next__(self) -> Rows:
        if self._make is None:
            raise StopIteration
        try:
            batch = self._make()
        except BaseException as error:
            self._fail(error)
            raise
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def _fail(self, error: BaseException) -> None:
        """Give the same error from now on: what was half filled must never be handed out."""
        self._end(_BRIEFLY)
        self._thread = None

        def fail() -> Rows | None:
            raise error

        self._make = fail

    def close(self) -> None:
        """End the thread and forget the data; a second call does nothing."""
        if self._make is None:
            return
        self._end(self._timeout)

    def _end(self, timeout: float) -> None:
        self._make = None
        if self._thread is not None:
            self.watch(_nobody, 0)  # the thread, should it hang, keeps nobody
            self._finalizer()
            self._thread.join(min(timeout, self._timeout))
            if self._thread.is_alive():
                _log.warning("the reader's thread did not end within %g s: a read or a transform hangs", timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
