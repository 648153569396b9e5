"""Spark's collections: RDDs of objects, DataFrames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from strombus.data.native import Cut, NativeCollection, cut_rows, join_cuts, table_rows
from strombus.data.rows import Rows, iterate_rows
from strombus.errors import ConfigurationError
from strombus.types import DataSet, NativePartition

__all__ = ["SparkCollection", "from_frame", "from_rdd", "storage_level_named"]

_DTYPES = {
    "float": np.float32,
    "double": np.float64,
    "tinyint": np.int8,
    "smallint": np.int16,
    "int": np.int32,
    "bigint": np.int64,
    "boolean": np.bool_,
}


class SparkCollection(NativeCollection):
    """An RDD of objects.

    Parameters
    ----------
    rdd : pyspark.RDD
        Of `DataSet` or `MultiDataSet`.
    given : pyspark.RDD, optional
        The RDD as it came, whose objects may have keys; None for a table.
    """

    engine = "spark"

    def __init__(self, rdd: Any, given: Any = None) -> None:
        self.rdd = rdd
        self._given = given
        self._cells: Any = None

    def partitions(self) -> list[NativePartition]:
        """Return the RDD's partitions."""
        return self._handles(self.rdd)

    def objects(self) -> list[NativePartition]:
        """Return the partitions as they came, keys included where objects have some."""
        return self._handles(self.rdd if self._given is None else self._given)

    @property
    def lazy(self) -> bool:
        """Whether this is an RDD of objects."""
        return self._given is not None

    def apply(self, function: Callable[[Any, Iterable[Any]], Iterable[Any]], shared: Any) -> Any:
        """Return an RDD; `shared`, a broadcast value, lives as long as that."""
        return self._given.mapPartitions(partial(_applied, function, shared))

    def _handles(self, rdd: Any) -> list[NativePartition]:
        return [NativePartition(self.engine, rdd, index) for index in range(rdd.getNumPartitions())]

    def _arrange(
        self, executor: Any, cuts: list[Cut], sizes: list[int], storage_level: str | None
    ) -> list[NativePartition]:
        level = storage_level_named(storage_level or "MEMORY_AND_DISK")
        keyed = self.rdd.mapPartitionsWithIndex(partial(_keyed, cuts))
        cells = keyed.partitionBy(len(sizes), _identity).mapPartitionsWithIndex(partial(_cell, sizes))
        self._cells = cells.persist(level)
        return self._handles(self._cells)

    def release(self) -> None:
        """Drop the cells from Spark's cache."""
        if self._cells is not None:
            self._cells.unpersist()
            self._cells = None


def _applied(
    function: Callable[[Any, Iterable[Any]], Iterable[Any]], shared: Any, objects: Iterable[Any]
) -> Iterable[Any]:
    return function(shared.get(), objects)


def _identity(cell: int) -> int:
    return cell


def _keyed(cuts: list[Cut], index: int, partition: Iterable[Rows]) -> Iterator[tuple[int, tuple[int, int, Rows]]]:
    mine = [cut for cut in cuts if cut.partition == index]
    for cut, place, rows in cut_rows(partition, mine):
        yield cut.cell, (index, place, rows)


def _cell(
    sizes: list[int], index: int, pieces: Iterable[tuple[int, tuple[int, int, Rows]]]
) -> Iterator[tuple[int, Rows]]:
    # A shuffle brings the pieces in any order.
    ordered = sorted((piece for _, piece in pieces), key=lambda piece: piece[:2])
    yield index, join_cuts((rows for _, _, rows in ordered), sizes[index])


def storage_level_named(name: str) -> Any:
    """Return PySpark's storage level; Python objects are always serialised, so that ``_SER`` changes nothing."""
    from pyspark import StorageLevel

    known = sorted(key for key, value in vars(StorageLevel).items() if isinstance(value, StorageLevel))
    level = getattr(StorageLevel, name.replace("_SER", ""), None)
    if not isinstance(level, StorageLevel):
        raise ConfigurationError(f"no storage level is called {name!r}; known: {', '.join(known)}")
    return level


def from_rdd(rdd: Any) -> SparkCollection:
    """Take an RDD of `DataSet`, `MultiDataSet` or (features, labels)."""
    return SparkCollection(rdd.mapPartitions(iterate_rows), rdd)


def from_frame(frame: Any, features: Sequence[str], label: str | None) -> SparkCollection:
    """Take a DataFrame's columns: numbers, arrays or ML vectors."""
    names = [*features, *([] if label is None else [label])]
    dtypes = [_DTYPES.get(_innermost(frame.schema[name].dataType)) for name in names]
    rows = frame.select(*names).rdd
    return SparkCollection(rows.mapPartitions(partial(_table, len(features), label is not None, dtypes)))


def _innermost(kind: Any) -> str:
    while hasattr(kind, "elementType"):
        kind = kind.elementType
    return str(kind.simpleString())


def _table(
    features: int, labelled: bool, dtypes: list[Any], rows: Iterable[Any], size: int = 1024
) -> Iterator[DataSet]:
    iterator = iter(rows)
    while taken := list(islice(iterator, size)):
        columns = [_typed(values, dtype) for values, dtype in zip(zip(*taken, strict=True), dtypes, strict=True)]
        yield table_rows(columns[:features], columns[features] if labelled else None)


def _typed(values: Sequence[Any], dtype: Any) -> Any:
    if dtype is not None:
        return np.asarray(values, dtype)
    return np.stack([value.toArray() if hasattr(value, "toArray") else np.asarray(value) for value in values])
