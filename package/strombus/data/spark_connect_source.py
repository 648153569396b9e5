"""Spark Connect's DataFrames, which have no RDD: their partitions are opened as Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from strombus.data.arrow import batch_rows
from strombus.data.columns import TableColumns
from strombus.data.native import NativeCollection
from strombus.data.spark_source import check_schema, quoted
from strombus.errors import ConfigurationError
from strombus.types import NativePartition

__all__ = ["ConnectCollection", "FrameHandle", "from_frame"]


@dataclass(frozen=True, eq=False)
class FrameHandle:
    """What an executor needs to open a DataFrame's partitions.

    Parameters
    ----------
    frame : pyspark.sql.connect.dataframe.DataFrame
    partitions : int
        How many there are.
    open : callable
        Turns the Arrow batches of a partition into objects, on a worker.
    """

    frame: Any
    partitions: int
    open: Callable[[Iterator[Any]], Iterator[Any]]


class ConnectCollection(NativeCollection):
    """The rows of a Spark Connect DataFrame.

    Parameters
    ----------
    frame : pyspark.sql.connect.dataframe.DataFrame
    columns : TableColumns
        Those of the frame.
    """

    engine = "spark-connect"

    def __init__(self, frame: Any, columns: TableColumns) -> None:
        self._frame = frame
        self._columns = columns

    def partitions(self) -> list[NativePartition]:
        """Return the partitions; the first call counts their rows on the cluster, since nobody else knows them."""
        return self._handles(partial(batch_rows, self._columns, False))

    def objects(self) -> list[NativePartition]:
        """Return the partitions, keys included where there are some."""
        return self._handles(partial(batch_rows, self._columns, self.keyed))

    @property
    def keyed(self) -> bool:
        """Whether there is a column of keys."""
        return self._columns.key is not None

    def _handles(self, read: Callable[[Iterator[Any]], Iterator[Any]]) -> list[NativePartition]:
        if self._counts is None:
            counted = self._frame.mapInArrow(_count, "partition int, rows long").collect()
            rows = {int(partition): int(count) for partition, count in counted}
            self._counts = [rows.get(index, 0) for index in range(max(rows, default=-1) + 1)]
        handle = FrameHandle(self._frame, len(self._counts), read)
        return [NativePartition(self.engine, handle, index) for index in range(handle.partitions)]

    def counts(self, executor: Any) -> list[int]:
        """Return the rows of each partition."""
        self.partitions()
        return super().counts(executor)

    def arrange(self, executor: Any, sizes: Sequence[int], storage_level: str | None = None) -> NoReturn:
        """Refuse: it takes RDDs to give each worker its rows and keep them in Spark's cache."""
        raise ConfigurationError(
            'rdd_training_approach="Direct" trains from RDDs, which Spark Connect does not have: take "Export" '
            "(the default), with an export_directory that this program and all executors reach"
        )

    def _arrange(self, executor: Any, *_: Any) -> NoReturn:
        self.arrange(executor, [])

    def release(self) -> None:
        """Do nothing: nothing is cached."""


def from_frame(frame: Any, columns: TableColumns) -> ConnectCollection:
    """Take a DataFrame's columns: numbers, arrays or ML vectors."""
    columns = replace(columns, engine="spark-connect")
    check_schema(frame, columns)
    return ConnectCollection(frame.select(*map(quoted, columns.names)), columns)


def _count(batches: Iterator[Any]) -> Iterator[Any]:
    import pyarrow as pa
    from pyspark import TaskContext

    rows = sum(batch.num_rows for batch in batches)
    context = TaskContext.get()
    assert context is not None
    columns = [pa.array([context.partitionId()], pa.int32()), pa.array([rows], pa.int64())]
    yield pa.RecordBatch.from_arrays(columns, ["partition", "rows"])
