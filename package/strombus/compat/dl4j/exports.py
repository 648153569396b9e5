"""DL4J's functions over the partitions of an RDD: cut objects anew, and write them as parts of a dataset."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator

from strombus.data import Rows, rebatch, store
from strombus.data.rows import iterate_rows
from strombus.data.writer import write_parts
from strombus.errors import ConfigurationError
from strombus.types import DataSet

__all__ = [
    "BatchAndExportDataSetsFunction",
    "BatchAndExportMultiDataSetsFunction",
    "BatchDataSetsFunction",
    "DataSetExportFunction",
    "MultiDataSetExportFunction",
    "SplitDataSetsFunction",
]

_BATCH = 32


class _Export:
    """Writes a partition's objects as Zarr parts; no row is lost."""

    def __init__(self, directory: str | os.PathLike[str], batch_size: int) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"minibatchSize must be at least 1, got {batch_size}")
        self._uri = store.normalise(directory)
        self._batch_size = batch_size
        self._export = secrets.token_hex(3)

    def _write(self, objects: Iterable[Rows]) -> list[str]:
        written = write_parts(objects, self._uri, self._export, batch_size=self._batch_size)
        return [store.join(self._uri, part.name) for part in written.parts]


class BatchAndExportDataSetsFunction(_Export):
    """Write each partition as Zarr parts: ``paths = rdd.mapPartitionsWithIndex(function).collect()``.

    The paths, as a list, are data that trains. `strombus.data.export` writes a whole dataset, whose root is one
    path; prefer it.

    Parameters
    ----------
    minibatchSize : int
        Chunks hold a multiple of it; minibatches of any size can be read.
    exportBaseDirectory : path or URI
        Storage that all workers reach.
    """

    def __init__(self, minibatchSize: int, exportBaseDirectory: str | os.PathLike[str]) -> None:
        super().__init__(exportBaseDirectory, minibatchSize)

    def __call__(self, partition: int, objects: Iterable[Rows]) -> Iterator[str]:
        return iter(self._write(objects))


class BatchAndExportMultiDataSetsFunction(BatchAndExportDataSetsFunction):
    """Write each partition of `MultiDataSet` as Zarr parts; see `BatchAndExportDataSetsFunction`."""


class DataSetExportFunction(_Export):
    """Write each partition as Zarr parts: ``rdd.foreachPartition(DataSetExportFunction(directory))``.

    Parameters
    ----------
    outputDir : path or URI
        Storage that all workers reach.
    """

    def __init__(self, outputDir: str | os.PathLike[str]) -> None:
        super().__init__(outputDir, _BATCH)

    def __call__(self, objects: Iterable[Rows]) -> None:
        self._write(objects)


class MultiDataSetExportFunction(DataSetExportFunction):
    """Write each partition of `MultiDataSet` as Zarr parts; see `DataSetExportFunction`."""


class BatchDataSetsFunction:
    """Cut a partition's objects to `minibatchSize` examples, the last one short: ``rdd.mapPartitions(function)``."""

    def __init__(self, minibatchSize: int) -> None:
        if minibatchSize < 1:
            raise ConfigurationError(f"minibatchSize must be at least 1, got {minibatchSize}")
        self._rows = minibatchSize

    def __call__(self, objects: Iterable[Rows]) -> Iterator[Rows]:
        return rebatch(objects, self._rows)


class SplitDataSetsFunction:
    """Cut a partition's objects to single examples: ``rdd.mapPartitions(SplitDataSetsFunction())``."""

    def __call__(self, objects: Iterable[DataSet]) -> Iterator[Rows]:
        return (item[row : row + 1] for item in iterate_rows(objects) for row in range(item.examples))
