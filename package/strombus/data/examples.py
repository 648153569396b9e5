"""Examples one by one, such as a torch Dataset's: workers take those of each minibatch and make arrays of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from strombus.data.rows import Column, Rows, as_rows, load_cell, stack_examples
from strombus.data.source import Source, Transform, check_function, split_rows
from strombus.documents import counted
from strombus.errors import DataError, kind_of
from strombus.types import Block, Columns, DataSet, MultiDataSet

__all__ = ["ExampleSource", "examples"]

Collate = Callable[[list[Any]], Any]
"""Examples to a `DataSet`, a `MultiDataSet` or (features, labels, ...) with a row for each."""

_BLOCK = 64
"""Examples that stay neighbours where the order of an epoch is laid out, before those of eight blocks are mixed."""


def examples(data: Any, collate: Collate | None = None, transform: Transform | None = None) -> ExampleSource:
    """Have workers take examples one by one, and make minibatches of them.

    Parameters
    ----------
    data : torch Dataset, list, or anything with a length whose items are found by number
        It is sent to every worker, so that it should hold where the examples are rather than the examples, unless
        these are few. An item is what `collate` takes.
    collate : callable, optional
        Makes of a list of items a `DataSet`, a `MultiDataSet` or a tuple (features, labels[, features_mask[,
        labels_mask]]) with a row for each, in order: torch's ``collate_fn``. By default items of equal shapes, arrays
        or such tuples of a single example, are stacked, and data sets of one row each put one below the other.
    transform : callable, optional
        See `strombus.data.open_dataset`; it is given what `collate` has made.

    Returns
    -------
    ExampleSource
        Taken wherever data is taken. Items, `collate` and `transform` run on the worker that uses the minibatch, each
        time anew; in the reader's thread where the master's `worker_prefetch_num_batches` is above 0.

    Raises
    ------
    DataError
        When `data` has no length or no numbered items; where the worker reads, when the rows are not as many as the
        items.
    """
    return ExampleSource(data, collate, transform)


class ExampleSource(Source):
    """Numbers of examples, which `Source.transform` turns into these; see `examples`."""

    def __init__(self, data: Any, collate: Collate | None = None, transform: Transform | None = None) -> None:
        if isinstance(data, str | Mapping) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise DataError(
                f"examples need a length and items by number, as a torch Dataset or a list has, got {kind_of(data)}; "
                "give an iterable to fit as it is"
            )
        check_function("collate", collate)
        check_function("transform", transform)
        self.kind = "DataSet"
        self.part_rows = (len(data),)
        self.columns = {"features": Column("int64", ())}
        self.transform = _Fetch(data, collate, transform)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({counted(self.rows, 'example')})"

    def blocks(self) -> tuple[Block, ...]:
        """Return runs of 64 examples."""
        return tuple(split_rows(0, self.rows, _BLOCK))

    def read(self, block: Block) -> Columns:
        """Return the numbers of a block's examples."""
        return {"features": np.arange(block.start, block.stop)}


@dataclass(frozen=True)
class _Fetch:
    """From the numbers of a minibatch's examples to its arrays; runs in the reader."""

    data: Any
    collate: Collate | None
    transform: Transform | None

    def __call__(self, numbers: DataSet) -> Any:
        items = [self.data[number] for number in numbers.features.tolist()]
        made = as_rows((self.collate or _stacked)(items))
        if made.examples != len(items):
            raise DataError(f"collate must make a row of each of {len(items)} examples, got {made.examples} rows")
        return made if self.transform is None else self.transform(made)


def _stacked(items: Sequence[Any]) -> Rows:
    if isinstance(items[0], DataSet | MultiDataSet):
        return load_cell(list(items))
    return stack_examples(items, "give examples(...) a collate that makes arrays of a list of them, padded if need be")
