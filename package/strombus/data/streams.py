"""Rows that come one after the other: what only this process can reach, and what every worker can make for itself."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from strombus.data.rows import Rows, as_rows, stack_examples
from strombus.errors import ConfigurationError, DataError, kind_of
from strombus.types import DataSet, MultiDataSet

__all__ = ["Examples", "LocalStream", "Stream", "is_maker", "stream"]

logger = logging.getLogger(__name__)

LONG_BYTES = 1 << 30
LONG_ROWS = 10_000_000
"""After so much of what has no length a warning asks whether it ends."""


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

    @property
    def ends(self) -> bool:
        """Whether it is known to end: it has a length, or it is the `head` of one that has none."""
        if isinstance(self.objects, _Head):
            return True
        try:
            return len(self.objects) >= 0  # type: ignore[arg-type]
        except TypeError:  # a DataLoader has the method, and no length where its dataset has none
            return False

    def whole(self) -> Iterator[Rows]:
        """Give all objects to someone who keeps them; a warning asks about one that goes on and on."""
        return iter(self) if self.ends else _watched(self)

    def head(self, rows: int) -> LocalStream:
        """Return what must be kept of it to have `rows` rows; all of it where it has a length."""
        return self if self.ends else LocalStream(_Head(self, rows))


def _watched(stream: LocalStream) -> Iterator[Rows]:
    rows = size = 0
    warned = False
    for item in stream:
        rows += item.examples
        size += sum(array.nbytes for array in item.columns().values())
        if not warned and (rows >= LONG_ROWS or size >= LONG_BYTES):
            warned = True
            logger.warning(
                "%d rows (%d MB) of a stream without a length have been kept so far, and it must end: fit takes one "
                "that does not with steps_per_epoch, and for all else itertools.islice cuts it off",
                rows,
                size // 1_000_000,
            )
        yield item


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
    return stack_examples(
        items, "give strombus.data.examples(dataset, collate) what makes arrays of a list of them, or a DataLoader"
    )


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

    def rows_of(self, items: list[Any]) -> Rows:
        """Return the rows of an item, or of several that are single examples."""
        return _stacked(items) if self.dataset else as_rows(items[0])

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
