"""What rows look like, and how small objects become larger ones without losing any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from strombus.errors import DataError, kind_of
from strombus.types import Columns, DataSet, MultiDataSet, from_columns

__all__ = [
    "Column",
    "KeyedRows",
    "Layout",
    "Rows",
    "as_rows",
    "concatenate",
    "is_mask",
    "iterate_rows",
    "load_cell",
    "rebatch",
    "stack_examples",
]

Rows = DataSet | MultiDataSet
"""One object with any number of rows."""


@dataclass(frozen=True, slots=True)
class KeyedRows:
    """Rows, and the key of each."""

    keys: Any
    rows: Rows

    @property
    def examples(self) -> int:
        """Number of rows."""
        return self.rows.examples


class Column(NamedTuple):
    """Dtype (NumPy's name) and trailing shape (without the examples) of one column."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return np.dtype(self.dtype).itemsize * prod(self.shape)


def is_mask(name: str) -> bool:
    """Say whether a column may be missing, which means ones."""
    return "_mask" in name


@dataclass(frozen=True)
class Layout:
    """Kind and columns that all objects of a data set agree in.

    Parameters
    ----------
    kind : {"DataSet", "MultiDataSet"}
    columns : mapping of str to Column
        Masks are listed when any object has them.
    """

    kind: str
    columns: Mapping[str, Column]

    @classmethod
    def of(cls, rows: Rows) -> Layout:
        """Describe one object."""
        return cls(rows.kind, {name: Column(a.dtype.name, a.shape[1:]) for name, a in rows.columns().items()})

    def merge(self, other: Layout, names: tuple[str, str] = ("the first object", "another object")) -> Layout:
        """Return the layout of both together.

        Raises
        ------
        DataError
            When they differ in kind, columns, dtype or trailing shape; shows both.
        """
        mine, theirs = self._fixed(), other._fixed()
        both = self.columns.keys() & other.columns.keys()
        if self.kind != other.kind or mine != theirs or any(self.columns[n] != other.columns[n] for n in both):
            raise DataError(
                f"all objects of a data set must agree in kind, dtypes and trailing shapes: {names[0]} is {self}, "
                f"{names[1]} is {other}; convert them to one form first"
            )
        return Layout(self.kind, {**self.columns, **other.columns})

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, all columns together; at least 1."""
        return max(1, sum(column.row_bytes for column in self.columns.values()))

    def _fixed(self) -> set[str]:
        return {name for name in self.columns if not is_mask(name)}

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {c.dtype}{list(c.shape)}" for name, c in self.columns.items())
        return f"{self.kind}({listed})"


def concatenate(layout: Layout, pieces: Sequence[Columns]) -> Columns:
    """Join pieces along the first axis; a mask that a piece lacks becomes ones. One piece is not copied."""
    return {name: _join(name, column, pieces) for name, column in layout.columns.items()}


def _join(name: str, column: Column, pieces: Sequence[Columns]) -> Any:
    arrays = [piece[name] if name in piece else _ones(column, _length(piece)) for piece in pieces]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _ones(column: Column, rows: int) -> Any:
    return np.ones((rows, *column.shape), column.dtype)


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def as_rows(item: Any) -> Rows:
    """Turn one object that users hand over into a `DataSet` or `MultiDataSet`.

    Parameters
    ----------
    item : DataSet, MultiDataSet, or (features, labels[, features_mask[, labels_mask]])
        Arrays with examples along the first axis. A pair whose label is a single number is one example.
        Lists of arrays make a `MultiDataSet`.

    Raises
    ------
    DataError
        For anything else, and for arrays whose lengths differ.
    """
    if isinstance(item, DataSet | MultiDataSet):
        return item
    if isinstance(item, tuple | list) and 1 <= len(item) <= 4:
        if _many(item[0]):
            return MultiDataSet(*item)
        if len(item) > 1 and item[1] is not None and np.ndim(item[1]) == 0:
            item = [None if value is None else np.asarray(value)[None] for value in item]
        if len(item) > 2 and item[2] is not None and np.ndim(item[2]) == 1:
            raise DataError(
                "the third of (features, labels, features_mask) has an entry for each step, (examples, time), got "
                f"shape {np.shape(item[2])}; weights of examples are given as DataSet(features, labels, weights=...), "
                "which a collate of strombus.data.examples may make"
            )
        return DataSet(*item)
    raise DataError(
        "an object of a data set must be a DataSet, a MultiDataSet or (features, labels[, features_mask[, "
        f"labels_mask]]), got {f'{len(item)} values' if isinstance(item, tuple | list) else kind_of(item)}"
    )


def stack_examples(items: Sequence[Any], advice: str) -> Rows:
    """Make rows of single examples: arrays, or tuples (features, labels[, features_mask[, labels_mask]]) of them.

    Raises
    ------
    DataError
        When they are something else, or differ in shape or number of values; ends with `advice`.
    """
    if isinstance(items[0], Mapping):
        raise DataError(f"an example must be an array or (features, labels), got {kind_of(items[0])}; {advice}")
    try:
        columns = list(zip(*items, strict=True)) if isinstance(items[0], tuple | list) else [items]
        arrays = [None if column[0] is None else np.stack(list(map(np.asarray, column))) for column in columns]
    except ValueError as error:
        raise DataError(f"examples must agree in shape and number of values: {error}; {advice}") from error
    return as_rows(tuple(arrays))


def _many(value: Any) -> bool:
    """Say whether `value` is a sequence of arrays rather than one array written as nested lists."""
    return isinstance(value, tuple | list) and bool(value) and all(hasattr(v, "shape") and v.ndim for v in value)


def iterate_rows(objects: Any) -> Iterator[Rows]:
    """Yield the objects of a partition: one object, or an iterable of what `as_rows` takes."""
    if isinstance(objects, DataSet | MultiDataSet):
        yield objects
    else:
        yield from map(as_rows, objects)


def load_cell(value: Any) -> Rows:
    """Return a native partition's rows as one object, whether an engine gave the object or an iterator of objects.

    Raises
    ------
    DataError
        When the partition has no rows at all.
    """
    objects = [rows for rows in iterate_rows(value) if rows.examples]
    if not objects:
        raise DataError("the partition has no rows, so that nothing can be made of it")
    if len(objects) == 1:
        return objects[0]
    layout = Layout.of(objects[0])
    for other in objects[1:]:
        layout = layout.merge(Layout.of(other))
    return from_columns(layout.kind, concatenate(layout, [rows.columns() for rows in objects]))


def rebatch(objects: Iterable[Any], rows: int) -> Iterator[Rows]:
    """Yield objects of exactly `rows` rows, in order, the last one short; no row is lost or repeated."""
    layout: Layout | None = None
    pending: list[Columns] = []
    have = 0
    for item in iterate_rows(objects):
        if not item.examples:
            continue
        layout = Layout.of(item) if layout is None else layout.merge(Layout.of(item))
        start = 0
        while start < item.examples:
            taken = item[start : start + rows - have]
            pending.append(taken.columns())
            start, have = start + taken.examples, have + taken.examples
            if have == rows:
                yield from_columns(layout.kind, concatenate(layout, pending))
                pending, have = [], 0
    if layout is not None and pending:
        yield from_columns(layout.kind, concatenate(layout, pending))
