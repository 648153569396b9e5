"""Objects of a collection as rows with their keys, and rows of different lengths side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from strombus.data import KeyedRows, Rows, as_rows
from strombus.errors import DataError
from strombus.types import Columns, DataSet, MultiDataSet, from_columns

__all__ = ["Item", "group_by_form", "read_masked_pair", "read_object", "read_pair", "windows"]

WINDOW_BYTES = 4 << 20
WINDOW_BATCHES = 64


class Item(NamedTuple):
    """One object: the columns of its rows, its key if it has one, and whether it is one example without that axis.

    `each` says that `key` is an array of one key for each row.
    """

    kind: str
    columns: Columns
    key: Any = None
    keyed: bool = False
    single: bool = False
    each: bool = False

    @classmethod
    def of(cls, rows: Rows, single: bool = False) -> Item:
        """Make an item without a key."""
        return cls(rows.kind, rows.columns(), single=single)

    @property
    def examples(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))


def read_object(value: Any) -> Item:
    """Take a data set, arrays, a pair of a key and either, or rows of a table with their keys.

    A pair is (features, labels) where its first is an array, a list or a tuple of arrays, and its second no data
    set; in all other pairs the first is a key.
    """
    if isinstance(value, KeyedRows):
        return Item.of(value.rows)._replace(key=value.keys, keyed=True, each=True)
    if isinstance(value, tuple) and len(value) == 2 and _is_key(*value):
        return _read_rows(value[1])._replace(key=value[0], keyed=True)
    return _read_rows(value)


def read_pair(value: Any) -> Item:
    """Take a pair of any key and features, or rows of a table with their keys."""
    if isinstance(value, KeyedRows):
        return read_object(value)
    key, features = _unpacked(value, "(key, features)")
    return _features(features)._replace(key=key, keyed=True)


def read_masked_pair(value: Any) -> Item:
    """Take a pair of any key and (features, features' mask)."""
    key, both = _unpacked(value, "(key, (features, mask))")
    return _features(*_unpacked(both, "(key, (features, mask))"))._replace(key=key, keyed=True)


def _is_key(first: Any, second: Any) -> bool:
    if isinstance(second, DataSet | MultiDataSet):
        return True
    arrays = first if isinstance(first, tuple) and first else (first,)
    return not all(getattr(array, "ndim", 0) or isinstance(array, list) for array in arrays)


def _unpacked(value: Any, wanted: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise DataError(f"every object must be a pair {wanted}, got {type(value).__name__}")
    return value[0], value[1]


def _read_rows(value: Any) -> Item:
    return _features(value) if getattr(value, "ndim", 0) else Item.of(as_rows(value))


def _features(features: Any, mask: Any = None) -> Item:
    """Take features alone; a vector, or features whose mask is a vector, are one example."""
    if isinstance(features, DataSet | MultiDataSet):
        return Item.of(features)
    if isinstance(features, list | tuple) and features and all(getattr(array, "ndim", 0) for array in features):
        masks = [None] * len(features) if mask is None else list(mask)
        single = all(array.ndim == 1 for array in features) or any(getattr(m, "ndim", 0) == 1 for m in masks)
        if single:
            features, masks = [array[None] for array in features], [m if m is None else m[None] for m in masks]
        return Item.of(MultiDataSet(features, None, masks), single)
    if getattr(features, "ndim", 0) == 1 or getattr(mask, "ndim", 0) == 1:
        return Item.of(DataSet(features[None], None, None if mask is None else mask[None]), single=True)
    return Item.of(DataSet(features, None, mask))


def windows(objects: Iterable[Any], read: Callable[[Any], Item], batch_size: int) -> Iterator[list[Item]]:
    """Yield runs of items: enough rows for wide passes, few enough for little memory."""
    window: list[Item] = []
    rows = size = 0
    for value in objects:
        item = read(value)
        window.append(item)
        rows += item.examples
        size += sum([array.nbytes for array in item.columns.values()])
        if rows >= batch_size and (size >= WINDOW_BYTES or rows >= WINDOW_BATCHES * batch_size):
            yield window
            window, rows, size = [], 0, 0
    if window:
        yield window


def group_by_form(items: Sequence[Item]) -> Iterator[tuple[list[int], Rows]]:
    """Yield, for each form of rows among the items, the numbers of its items and their rows as one object.

    Sequences of another length, or without a mask, are another form: they never share a minibatch, so that
    none has to be padded, whatever the network makes of a mask.
    """
    groups: dict[Any, list[int]] = {}
    for number, item in enumerate(items):
        form = (item.kind, *[(name, array.dtype.str, array.shape[1:]) for name, array in item.columns.items()])
        groups.setdefault(form, []).append(number)
    for (kind, *_), numbers in groups.items():
        pieces = [items[number].columns for number in numbers]
        joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        yield numbers, from_columns(kind, joined if len(pieces) > 1 else pieces[0])
