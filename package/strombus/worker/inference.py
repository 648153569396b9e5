"""Losses, scores and outputs of one partition; tasks, and what runs inside an engine's own lazy collections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.data import Piece, PieceWriter, Rows, Source, epoch_order, read_batches
from strombus.errors import DataError
from strombus.networks import Network, Replica
from strombus.networks.flat import to_numpy
from strombus.types import DataSet, MultiDataSet, Partition
from strombus.worker.bench import let_go
from strombus.worker.items import Item, group_by_form, read_object, windows
from strombus.worker.models import Models
from strombus.worker.passes import Passes
from strombus.worker.scoring import LossSum, merge_losses, sum_loss

__all__ = [
    "InferenceWork",
    "Outputs",
    "Scores",
    "answer_objects",
    "answer_part",
    "compute_part",
    "sum_part",
    "write_part",
]

Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Scores:
    """The score of each example: its loss, and `penalty` on top."""

    penalty: float = 0.0

    def __call__(self, replica: Replica, rows: Rows) -> Arrays:
        """Return one array, shape (examples,)."""
        if not rows.examples:
            return (np.empty(0),)
        scores = replica.per_example(rows)
        return (scores + scores.dtype.type(self.penalty),)

    def names(self, count: int) -> tuple[str, ...]:
        """Return what the arrays are called in Zarr."""
        return ("scores",)

    def answers(self, item: Item, arrays: Arrays) -> Iterator[Any]:
        """Yield what stands for an object: (key, score), or a score for each of its examples."""
        scores = arrays[0].tolist()
        if not item.keyed:
            yield from scores
        elif len(scores) == 1:
            yield item.key, scores[0]
        else:
            raise DataError(f"the object of key {item.key!r} holds {len(scores)} examples; give each one a key")


@dataclass(frozen=True)
class Outputs:
    """The outputs of each example; `several` for a network that has a tuple of them."""

    several: bool

    def __call__(self, replica: Replica, rows: Rows) -> Arrays:
        """Return one array for each output, shape (examples, ...)."""
        outputs = replica.forward(rows)
        return tuple(map(to_numpy, outputs if self.several else (outputs,)))

    def names(self, count: int) -> tuple[str, ...]:
        """Return what the arrays are called in Zarr."""
        return tuple(f"output_{number}" for number in range(count)) if self.several else ("output",)

    def answers(self, item: Item, arrays: Arrays) -> Iterator[Any]:
        """Yield what stands for an object: its outputs, with its key if it has one."""
        arrays = tuple(array[0] for array in arrays) if item.single else arrays
        found = arrays if self.several else arrays[0]
        yield (item.key, found) if item.keyed else found


@dataclass(frozen=True)
class InferenceWork:
    """What stays the same for all partitions; shared with the workers once.

    Parameters
    ----------
    passes : Passes
        The network's copies, and how rows go through them.
    compute : Scores or Outputs
    source : Source, optional
        Parts are spans of its rows; without one they are objects.
    read : callable
        What an object is.
    keyed : bool
        Whether the source's keys come along.
    target : str
        Where `write_part` writes.
    """

    passes: Passes
    compute: Scores | Outputs
    source: Source | None = None
    read: Callable[[Any], Item] = read_object
    keyed: bool = False
    target: str = ""

    @classmethod
    def of(
        cls, network: Network, copies: int, batch_size: int, compute: Scores | Outputs, **options: Any
    ) -> InferenceWork:
        """Make the work of one call."""
        return cls(Passes(Models(network, copies), batch_size), compute, **options)

    def to(self, target: str, source: Source | None = None, keyed: bool = False) -> InferenceWork:
        """Return the work for one source and one place to write."""
        return replace(self, target=target, source=source, keyed=keyed)

    def slabs(self, part: Partition) -> Iterator[Rows]:
        """Yield the rows of a span, as they are stored: whole blocks, joined where they are less than a minibatch."""
        assert self.source is not None
        order = epoch_order(self.source.blocks(), seed=0, epoch=0, shuffle=False)
        sizes: list[int] = []
        for window in order:
            rows = min(part.stop, window.stop) - max(part.start, window.start)
            if rows > 0 and sizes and sizes[-1] < self.passes.batch_size:
                sizes[-1] += rows
            elif rows > 0:
                sizes.append(rows)
        try:
            with read_batches(
                self.source, order, part.start, part.stop, sizes, seed=0, epoch=0, shuffle=False, prefetch=1
            ) as slabs:
                yield from slabs
        finally:
            self.source.release()  # a process keeps the work of several calls, but nobody reads these blocks again
            let_go(self.source)

    def windows(self, objects: Iterable[Any]) -> Iterator[list[Item]]:
        """Yield the objects of a partition, which may be a single one, as runs of items."""
        objects = [objects] if isinstance(objects, DataSet | MultiDataSet) else objects
        return windows(objects, self.read, self.passes.batch_size)


def sum_part(work: InferenceWork, part: Any) -> LossSum:
    """Sum the loss over a partition, without regularisation; a task."""
    workers = work.passes.divide_threads()
    slabs = work.slabs(part) if isinstance(part, Partition) else _slabs_of_objects(work, part)
    return reduce(merge_losses, work.passes.run(slabs, sum_loss, workers), LossSum())


def _slabs_of_objects(work: InferenceWork, objects: Iterable[Any]) -> Iterator[Rows]:
    for window in work.windows(objects):
        yield from (rows for _, rows in group_by_form(window) if rows.examples)


def answer_objects(work: InferenceWork, objects: Iterable[Any]) -> Iterator[Any]:
    """Yield, for the objects of a partition in order, what `work.compute` answers."""
    yield from _answers(work, objects, workers=1)  # the engine runs as many partitions at a time as it likes


def answer_part(work: InferenceWork, objects: Iterable[Any]) -> list[Any]:
    """Return the answers for a list of objects; a task."""
    return list(_answers(work, objects, work.passes.divide_threads()))


def _answers(work: InferenceWork, objects: Iterable[Any], workers: int) -> Iterator[Any]:
    for window in work.windows(objects):
        for item, arrays in zip(window, _compute_window(work, window, workers), strict=True):
            yield from work.compute.answers(item, arrays)


def _compute_window(work: InferenceWork, window: list[Item], workers: int) -> list[Arrays]:
    """Return the arrays of each item; rows of one form share passes."""
    found: list[Arrays] = [()] * len(window)
    for numbers, rows in group_by_form(window):
        arrays = _compute_rows(work, rows, workers)
        ends = np.cumsum([window[number].examples for number in numbers])
        pieces = zip(*(np.split(array, ends[:-1]) for array in arrays), strict=True)
        for number, piece in zip(numbers, pieces, strict=True):
            found[number] = piece
    return found


def _compute_rows(work: InferenceWork, rows: Rows, workers: int) -> Arrays:
    found = list(work.passes.run([rows], work.compute, workers))
    return found[0] if len(found) == 1 else _joined(found)


def _joined(pieces: list[Arrays]) -> Arrays:
    return tuple(np.concatenate(arrays) for arrays in zip(*pieces, strict=True))


Stretch = tuple[Any, Arrays]
"""Keys (None where there are none) and arrays of some rows, in order."""


def _stretches(work: InferenceWork, part: Any) -> Iterator[Stretch]:
    """Yield the results of a partition as arrays."""
    workers = work.passes.divide_threads()
    if isinstance(part, Partition):
        return _stretches_of_rows(work, part, workers)
    return _stretches_of_objects(work, part, workers)


def _stretches_of_rows(work: InferenceWork, part: Partition, workers: int) -> Iterator[Stretch]:
    start = part.start
    for arrays in work.passes.run(work.slabs(part), work.compute, workers):
        stop = start + len(arrays[0])
        assert work.source is not None
        yield work.source.read_keys(start, stop) if work.keyed else None, arrays
        start = stop


def _stretches_of_objects(work: InferenceWork, objects: Iterable[Any], workers: int) -> Iterator[Stretch]:
    for objects_there in work.windows(objects):
        window = [item for item in objects_there if item.examples]
        computed = _compute_window(work, window, workers)
        forms = {tuple((array.dtype.str, array.shape[1:]) for array in arrays) for arrays in computed}
        if not window:
            continue
        if len(forms) > 1:
            shapes = sorted({str([shape for _, shape in form]) for form in forms})
            raise DataError(
                f"results of different shapes make no array: an example's is {' or '.join(shapes[:4])}; give the "
                "data as a Bag, an RDD or pairs with keys, without `to`, to have them one by one"
            )
        yield _keys_of(window), _joined(computed)


def _keys_of(window: list[Item]) -> Any:
    keyed = {item.keyed for item in window}
    if keyed == {False}:
        return None
    if len(keyed) > 1:
        raise DataError("some objects are pairs with a key and some are not; give all of them a key, or none")
    if window[0].each:
        return np.concatenate([item.key for item in window])
    return np.repeat(_as_keys([item.key for item in window]), [item.examples for item in window])


def _as_keys(keys: list[Any]) -> NDArray[Any]:
    array = np.asarray(keys) if len({isinstance(key, str) for key in keys}) == 1 else np.asarray(keys, object)
    if array.ndim != 1 or array.dtype.kind not in "iufbU":
        kinds = ", ".join(sorted({type(key).__name__ for key in keys}))
        raise DataError(f"keys must be numbers or strings to be stored in Zarr, got {kinds}; leave out `to`")
    return array


def compute_part(work: InferenceWork, part: Any) -> tuple[Any, Arrays]:
    """Return keys and arrays of a partition; a task."""
    found = list(_stretches(work, part))
    if not found:
        return None, ()
    keys = [keys for keys, _ in found if keys is not None]
    return (np.concatenate(keys) if keys else None), _joined([arrays for _, arrays in found])


def write_part(work: InferenceWork, part: Any) -> tuple[Piece, ...]:
    """Write keys and arrays of a partition as pieces of a result; a task."""
    writer = PieceWriter(work.target)
    for keys, arrays in _stretches(work, part):
        columns = dict(zip(work.compute.names(len(arrays)), arrays, strict=True))
        writer.add(columns if keys is None else {**columns, "keys": keys})
    return writer.finish()
