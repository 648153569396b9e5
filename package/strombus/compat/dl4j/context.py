"""DaskSparkContext: what a Spark driver program asks its SparkContext for, on Dask."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from distributed import Client

from strombus.compat.dl4j import files, steps
from strombus.compat.dl4j.calls import dump_records
from strombus.compat.dl4j.lineage import Derived, Foreign, Scattered
from strombus.compat.dl4j.rdd import RDD
from strombus.compat.dl4j.variables import Accumulator, Broadcast, Reports
from strombus.errors import ConfigurationError, ExecutorError
from strombus.executors import resolve
from strombus.executors.dask import DaskExecutor

__all__ = ["DaskSparkContext"]

LOG_LEVELS = {
    "ALL": logging.DEBUG,
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "OFF": logging.CRITICAL + 1,
}


class DaskSparkContext:
    """Run a driver program that was written for Spark's ``SparkContext`` on a Dask cluster.

    Parameters
    ----------
    client : distributed.Client or str, optional
        A client, or the address of a scheduler; without, the current client, else a cluster of processes on this
        machine. What is handed over stays open.

    Raises
    ------
    ConfigurationError
        When it is something else.
    ExecutorError
        When no scheduler answers at the address.

    Examples
    --------
    >>> with DaskSparkContext(client) as sc:  # doctest: +SKIP
    ...     sc.parallelize([1, 2, 3]).map(lambda x: x + 1).collect()
    [2, 3, 4]
    """

    def __init__(self, client: Client | str | None = None) -> None:
        executor = resolve("dask" if client is None else client)
        if not isinstance(executor, DaskExecutor):
            executor.close()
            raise ConfigurationError(
                f"DaskSparkContext needs a distributed.Client or a scheduler's address, got {client!r}"
            )
        self._executor: DaskExecutor | None = executor
        self._rdds = 0
        self._reports: Reports | None = None

    def _open(self) -> DaskExecutor:
        if self._executor is None:
            raise ExecutorError("this DaskSparkContext was stopped; make a new one")
        return self._executor

    @property
    def client(self) -> Client:
        """The Dask client; ``Trainer(..., backend=context)`` trains through it."""
        return self._open().client

    def _next_id(self) -> int:
        self._rdds += 1
        return self._rdds - 1

    # -- life ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the context: its RDDs can no longer be computed. A client that was handed over stays open."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        if self._reports is not None:
            executor.client.unsubscribe_topic(self._reports.topic)
        executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def setLogLevel(self, logLevel: str) -> None:
        """Set how much Dask logs in this process, by one of Log4j's levels."""
        if logLevel.upper() not in LOG_LEVELS:
            raise ConfigurationError(f"logLevel must be one of {', '.join(LOG_LEVELS)}, got {logLevel!r}")
        logging.getLogger("distributed").setLevel(LOG_LEVELS[logLevel.upper()])

    @property
    def defaultParallelism(self) -> int:
        """Threads of all workers, at least 2."""
        threads: dict[str, int] = self.client.nthreads()
        return max(2, sum(threads.values()))

    @property
    def defaultMinPartitions(self) -> int:
        """Partitions of files: 2."""
        return min(2, self.defaultParallelism)

    # -- data ------------------------------------------------------------------------------------

    def parallelize(self, c: Iterable[Any], numSlices: int | None = None) -> RDD:
        """Bring records to the cluster, neighbours together, in slices of about equal length.

        Parameters
        ----------
        c : iterable
            Pickled now: what is done to it later does not show. A ``range`` is made on the workers.
        numSlices : int, optional
            `defaultParallelism` by default.
        """
        size = self._slices(numSlices)
        if isinstance(c, range):
            return RDD(self, Derived("range", size, partial(_slice_range, c, size), lambda i: ()))
        records = c if isinstance(c, Sequence) and not isinstance(c, str | bytes) else list(c)
        slices = [records[i * len(records) // size : (i + 1) * len(records) // size] for i in range(size)]
        return RDD(self, Scattered([dump_records(list(one)) for one in slices], self._open().scatter))

    def _slices(self, numSlices: int | None) -> int:
        if numSlices is None:
            return self.defaultParallelism
        if not isinstance(numSlices, int) or numSlices < 1:
            raise ConfigurationError(f"numSlices must be an integer of at least 1, got {numSlices!r}")
        return numSlices

    def range(self, start: int, end: int | None = None, step: int = 1, numSlices: int | None = None) -> RDD:
        """Return the numbers of ``range(start, end, step)``, or of ``range(start)``."""
        return self.parallelize(range(start) if end is None else range(start, end, step), numSlices)

    def emptyRDD(self) -> RDD:
        """Return an RDD without partitions."""
        return RDD(self, Derived("emptyRDD", 0, steps.concatenate, lambda i: ()))

    def union(self, rdds: Sequence[RDD]) -> RDD:
        """Return the partitions of all RDDs, in their order."""
        if not rdds:
            raise ConfigurationError("union needs at least one RDD, got none; emptyRDD() has no records")
        first, *others = rdds
        return first._union([first._same(one, "union") for one in others]) if others else first

    def textFile(self, name: str, minPartitions: int | None = None, use_unicode: bool = True) -> RDD:
        """Read lines, cut into about `minPartitions` partitions.

        Parameters
        ----------
        name : str
            Files, directories or patterns, separated by commas; paths that all workers reach, or URIs of fsspec.
            Compressed files are unpacked, each in a partition of its own.

        Raises
        ------
        MissingDataError
            When there is nothing.
        """
        spans = files.cut_files(files.find_files(name), minPartitions or self.defaultMinPartitions)
        return RDD(self, Derived("textFile", len(spans), partial(files.read_span, spans, use_unicode), lambda i: ()))

    def wholeTextFiles(self, path: str, minPartitions: int | None = None, use_unicode: bool = True) -> RDD:
        """Read (URI, text) of each file, see `textFile`."""
        return self._whole("wholeTextFiles", path, minPartitions, use_unicode)

    def binaryFiles(self, path: str, minPartitions: int | None = None) -> RDD:
        """Read (URI, bytes) of each file, see `textFile`."""
        return self._whole("binaryFiles", path, minPartitions, False)

    def _whole(self, operation: str, path: str, minPartitions: int | None, text: bool) -> RDD:
        groups = files.group_files(files.find_files(path), minPartitions or self.defaultMinPartitions)
        return RDD(self, Derived(operation, len(groups), partial(files.read_whole, groups, text), lambda i: ()))

    def fromBag(self, bag: Any) -> RDD:
        """Return a dask Bag as an RDD of the same partitions; the other way is `RDD.toBag`."""
        return RDD(self, Foreign(bag.to_delayed()))

    # -- variables -------------------------------------------------------------------------------

    def broadcast(self, value: Any) -> Broadcast:
        """Bring a value to the cluster, for functions to use as ``.value``; each worker fetches it once."""
        return Broadcast(value, self._open().share(value))  # type: ignore[arg-type]

    def accumulator(self, value: Any, accum_param: Any = None) -> Accumulator:
        """Make a sum that tasks add to and the driver reads.

        Parameters
        ----------
        value : int, float, complex or anything
            Where it starts.
        accum_param : object, optional
            How other things than numbers are added: ``zero(value)`` and ``addInPlace(one, other)``.
        """
        if self._reports is None:
            self._reports = Reports()
            self.client.subscribe_topic(self._reports.topic, self._reports.receive)
        return self._reports.open(value, accum_param)


def _slice_range(numbers: range, size: int, index: int) -> range:
    return numbers[index * len(numbers) // size : (index + 1) * len(numbers) // size]
