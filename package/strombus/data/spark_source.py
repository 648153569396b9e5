"""Spark's collections: RDDs of objects, DataFrames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from strombus.data.columns import At, Name, TableColumns, missing, no_numbers, stack_cells
from strombus.data.native import Cut, NativeCollection, cut_rows, join_cuts
from strombus.data.rows import Rows, iterate_rows
from strombus.errors import ConfigurationError
from strombus.types import NativePartition

__all__ = ["SparkCollection", "check_schema", "from_frame", "from_rdd", "quoted", "storage_level_named"]

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
    keyed : pyspark.RDD, optional
        Of a table's rows with their keys, `KeyedRows`.
    """

    engine = "spark"

    def __init__(self, rdd: Any, given: Any = None, keyed: Any = None) -> None:
        self.rdd = rdd
        self._given = given
        self._keyed = keyed
        self._cells: Any = None

    def partitions(self) -> list[NativePartition]:
        """Return the RDD's partitions."""
        return self._handles(self.rdd)

    def objects(self) -> list[NativePartition]:
        """Return the partitions as they came, keys included where objects have some."""
        return self._handles(next(rdd for rdd in (self._given, self._keyed, self.rdd) if rdd is not None))

    @property
    def keyed(self) -> bool:
        """Whether this is a table with a column of keys."""
        return self._keyed is not None

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


def from_frame(frame: Any, columns: TableColumns) -> SparkCollection:
    """Take a DataFrame's columns: numbers, arrays or ML vectors."""
    columns = replace(columns, engine="spark")
    check_schema(frame, columns)
    table = _Table(columns, [_DTYPES.get(_innermost(frame.schema[name].dataType)) for name in columns.names])
    rows = frame.select(*map(quoted, columns.names)).rdd
    keyed = None if columns.key is None else rows.mapPartitionsWithIndex(partial(table.read, True))
    return SparkCollection(rows.mapPartitionsWithIndex(partial(table.read, False)), keyed=keyed)


def check_schema(frame: Any, columns: TableColumns) -> None:
    """Raise DataError for columns that are not there, or that hold no numbers; the driver knows from the schema."""
    columns.check(frame.columns, "the DataFrame")
    for name in columns.numbers:
        kind = _innermost(frame.schema[name].dataType)
        if kind not in (*_DTYPES, "vector", "matrix"):
            raise no_numbers(name, kind, columns.engine)


def quoted(name: Name) -> str:
    """Return a column's name as Spark takes it where it has a dot."""
    return "`" + str(name).replace("`", "``") + "`"


def _innermost(kind: Any) -> str:
    while hasattr(kind, "elementType"):
        kind = kind.elementType
    return str(kind.simpleString())


@dataclass(frozen=True)
class _Table:
    """Rows of a DataFrame to objects, on a worker."""

    columns: TableColumns
    dtypes: list[Any]

    def read(self, keyed: bool, index: int, rows: Iterable[Any], size: int = 1024) -> Iterator[Any]:
        """Yield objects of up to `size` rows of a partition."""
        iterator, make = iter(rows), self.columns.keyed if keyed else self.columns.rows
        first = 0
        while taken := list(islice(iterator, size)):
            at = partial(_place, index, first)
            values = dict(zip(self.columns.names, zip(*taken, strict=True), strict=True))
            kinds = zip(self.columns.names, self.dtypes, strict=True)
            yield make({name: self._array(name, values[name], dtype, at) for name, dtype in kinds}, at)
            first += len(taken)

    def _array(self, name: Name, values: Sequence[Any], dtype: Any, at: At) -> Any:
        gaps = [value is None for value in values]
        if any(gaps):
            raise missing(name, sum(gaps), at(gaps.index(True)))
        if name not in self.columns.numbers:
            return np.asarray(values)
        if dtype is None:
            return stack_cells(values, name, at, self.columns.engine)
        try:
            array = np.asarray(values, dtype)
        except (ValueError, TypeError):  # lists of different lengths, or with gaps
            return stack_cells(values, name, at, self.columns.engine)
        if array.dtype.kind == "f" and array.ndim > 1 and np.isnan(array).any():
            stack_cells(values, name, at, self.columns.engine)  # a gap in a list has become NaN
        return array


def _place(index: int, first: int, row: int) -> str:
    return f"row {first + row} of partition {index}"
