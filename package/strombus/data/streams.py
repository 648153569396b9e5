"""Rows that come one after the other: what only this process can reach, and what every worker can make for itself."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from strombus.data.reader import BatchReader
from strombus.data.rows import Layout, Rows, as_rows, concatenate
from strombus.data.source import Source, Transform
from strombus.errors import ConfigurationError, DataError, kind_of
from strombus.types import Block, Columns, DataSet, MultiDataSet
from strombus.types.cursor import Span

__all__ = ["Examples", "LocalStream", "Reel", "Stream", "StreamSource", "is_maker", "look_at", "read_stream", "stream"]

_log = logging.getLogger(__name__)

_TELLING = threading.Lock()  # torch has one place for who a worker is in a process
_LONG = 1000
"""Rows that are passed over without a word."""


class LocalStream:
    """Objects that only this process can reach, one after the other.

    Parameters
    ----------
    objects : iterable
        Of what `as_rows` takes.
    """

    def __init__(self, objects: Iterable[Any]) -> None:
        if inspect.isgenerator(objects) and inspect.getgeneratorstate(objects) == inspect.GEN_CLOSED:
            raise DataError(
                f"the generator {objects.__qualname__} has been used up, and can be gone through once: give the "
                "function that makes it"
            )
        self.objects = objects

    def __iter__(self) -> Iterator[Rows]:
        return map(as_rows, self.objects)

    def head(self, rows: int) -> LocalStream:
        """Return what must be kept of it to have `rows` rows; all of it where it has a length."""
        return self if hasattr(self.objects, "__len__") else LocalStream(_Head(self, rows))


class _Head:
    """Objects until there are so many rows."""

    def __init__(self, objects: Iterable[Rows], rows: int) -> None:
        self._objects, self._rows = objects, rows

    def __iter__(self) -> Iterator[Rows]:
        left = self._rows
        for item in self._objects:
            yield item[:left]
            left -= min(left, item.examples)
            if not left:
                return


class Examples:
    """A torch Dataset, whose items are single examples, as objects of up to `size` rows."""

    def __init__(self, examples: Any, size: int = 256) -> None:
        self._examples = examples
        self._size = size

    def __iter__(self) -> Iterator[Rows]:
        while_indexed = hasattr(self._examples, "__len__") and not hasattr(self._examples, "__iter__")
        items = (self._examples[i] for i in range(len(self._examples))) if while_indexed else iter(self._examples)
        while taken := list(islice(items, self._size)):
            yield _stacked(taken)

    def __len__(self) -> int:
        return (len(self._examples) + self._size - 1) // self._size


def _stacked(items: list[Any]) -> Rows:
    if isinstance(items[0], DataSet | MultiDataSet):
        raise DataError("the items of a torch Dataset must be single examples; give DataSets as a plain iterable")
    if not isinstance(items[0], tuple | list):
        return DataSet(np.stack([np.asarray(item) for item in items]))
    return DataSet(*(np.stack([np.asarray(value) for value in column]) for column in zip(*items, strict=True)))


def is_maker(data: Any) -> bool:
    """Say whether `data` is a function, which may make an iterator."""
    return inspect.isroutine(data) or isinstance(data, functools.partial)


def stream(make: Any, *, sharded: bool | None = None) -> Stream:
    """Have workers make their rows themselves: the data of a fit with ``steps_per_epoch``.

    Parameters
    ----------
    make : callable or torch IterableDataset
        ``make()`` returns an iterator, or an iterable, of `DataSet`, `MultiDataSet` or (features, labels) batches, or
        of pairs whose label is one number; ``make(rank, workers)`` what worker `rank` of so many trains. The items of
        an IterableDataset are single examples. Must be picklable, and give the same each time.
    sharded : bool, optional
        Whether each worker is given rows of its own. By default a function is sharded that must be given two arguments,
        and a dataset that asks ``torch.utils.data.get_worker_info()`` who it is before its first item. Of what is not
        sharded every worker makes all, and trains every n-th minibatch.

    Raises
    ------
    ConfigurationError
        When `make` is neither, or wants other arguments.
    """
    return Stream(make, sharded)


class Stream(LocalStream):
    """Rows that a function or a torch IterableDataset gives wherever it is asked; made by `stream`."""

    def __init__(self, make: Any, sharded: bool | None = None) -> None:
        self.dataset = not is_maker(make)
        if self.dataset and not _is_iterable_dataset(make):
            raise ConfigurationError(
                f"a stream is made by a function or a torch IterableDataset, got {kind_of(make)}; wanted: a function "
                "without arguments, or of rank and workers, that returns an iterator"
            )
        self.make = make
        self.sharded = sharded if self.dataset or sharded is not None else _wants_rank(make)
        super().__init__(Examples(make) if self.dataset else _Made(self))

    def open(self, rank: int, workers: int) -> Iterator[Any]:
        """Begin; `rank` and `workers` are for one that is sharded."""
        made = self.make if self.dataset else self.make(rank, workers) if self.sharded else self.make()
        try:
            return iter(made)
        except TypeError as error:
            raise DataError(f"the stream's function must return an iterator, got {kind_of(made)}") from error

    def rows_of(self, item: Any) -> Rows:
        """Return an item's rows."""
        return _stacked([item]) if self.dataset else as_rows(item)

    def head(self, rows: int) -> LocalStream:
        """Return the whole, which workers take as much of as they need."""
        return self


class _Made:
    """All items of a stream, made anew for whoever goes through them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Any]:
        return self._stream.open(0, 1)


def _is_iterable_dataset(value: Any) -> bool:
    from torch.utils.data import IterableDataset

    return isinstance(value, IterableDataset)


def _wants_rank(make: Callable[..., Any]) -> bool:
    """Say whether a function must be given rank and workers."""
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # of some that are written in C nobody knows
        return False
    for arguments in ((), (0, 1)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return bool(arguments)
    raise ConfigurationError(
        f"a stream's function is called without arguments, or with rank and workers, got {kind_of(make)} "
        f"{getattr(make, '__name__', '')}{signature}; bind others with functools.partial"
    )


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
    return Layout.of(stream.rows_of(item)), sharded


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
        made = source.stream
        tells = made.dataset and source.sharded
        self._told = _Told(made.make, rank, workers, seed + rank) if tells else None
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
                "worker %d passes over the first %d rows of the stream, which were trained before", self._rank, start
            )
        while self._position < start:
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
            item = self._item()
            self._rows, self._used = (item if item.examples else None), 0
        taken = self._rows[self._used : self._used + most]
        self._used += taken.examples
        self._position += taken.examples
        if self._used == self._rows.examples:
            self._rows = None  # the next one may be asked for much later
        return taken

    def _item(self) -> Rows:
        with _telling(self._told):
            self._items = self._source.stream.open(self._rank, self._workers) if self._items is None else self._items
            item = next(self._items, None)
        if item is not None:
            return self._checked(self._source.stream.rows_of(item))
        if self._position == self._since:
            raise DataError(f"the stream of worker {self._rank} ended without any rows after {self._position} rows")
        _log.info("worker %d: the stream is exhausted after %d rows, and begins again", self._rank, self._position)
        self._items, self._since = None, self._position
        return self._item()

    def _checked(self, rows: Rows) -> Rows:
        layout = self._source.layout
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
