"""Jobs of a `SparkConnectExecutor`: frames of Arrow batches, tags to end them by, what the server tells of itself."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from strombus.errors import ConfigurationError, ExecutorError
from strombus.executors.calls import dump
from strombus.executors.spark_connect_tasks import PIECES, join_pieces
from strombus.executors.spark_jobs import Probed, explain, make_probe
from strombus.executors.spark_tasks import Outcome
from strombus.types import NativePartition

if TYPE_CHECKING:
    from pyspark.sql.connect.dataframe import DataFrame
    from pyspark.sql.connect.session import SparkSession

__all__ = ["MISSING", "Source", "ensure_running", "probe", "run_frame", "setting", "tagged"]

MISSING = (
    "install it there (pip install strombus), or send a packed environment along: "
    'spark.addArtifacts("environment.tar.gz#environment", archive=True) and '
    'spark.conf.set("spark.sql.execution.pyspark.python", "environment/bin/python")'
)

PROBED = 2**16
"""Rows of the frame with which workers are asked: enough that no partition of a cluster's cores is empty."""


class Source:
    """The parts of one call as a frame: numbers of small descriptions, or the caller's own DataFrame.

    Attributes
    ----------
    numbers : dict of int to int or None
        Part number by partition of the frame, for native partitions.
    """

    def __init__(self, session: SparkSession, parts: Sequence[Any]) -> None:
        self._session, self._parts = session, parts
        native = [isinstance(part, NativePartition) for part in parts]
        if any(native) and not all(native):
            raise ConfigurationError(
                "the parts of one call must be all native partitions or none, "
                f"got {sum(native)} native ones among {len(native)}"
            )
        self.numbers: dict[int, int] | None = None
        self.held: Any = None
        if any(native):
            self.held = _one_frame(session, parts)
            self.numbers = {part.index: number for number, part in enumerate(parts)}
            if len(self.numbers) < len(parts):
                raise ConfigurationError("a native partition may be given once in a call, got one twice")

    def __len__(self) -> int:
        return len(self._parts)

    def take(self, start: int, stop: int) -> tuple[DataFrame, dict[int, bytes] | None]:
        """Return a frame and the pickled parts by the number in its rows; for native partitions all of the frame."""
        if self.held is not None:
            return self.held.frame, None
        pickled = {number: dump(self._parts[number], f"part {number}") for number in range(start, stop)}
        return self._session.range(start, stop, 1, stop - start), pickled


def _one_frame(session: SparkSession, parts: Sequence[NativePartition]) -> Any:
    held = {id(part.handle): part.handle for part in parts}
    for part in parts:
        if part.engine != "spark-connect" or part.handle.frame.sparkSession is not session:
            raise ConfigurationError(
                "a native partition must be of a DataFrame of the executor's own Spark Connect session, "
                f"got engine {part.engine!r}; use the session that made it as backend, or give a DataFrame or a path: "
                "Spark Connect has no RDDs"
            )
    if len(held) > 1:
        raise ConfigurationError("the native partitions of one call must be of one DataFrame on Spark Connect")
    return next(iter(held.values()))


def ensure_running(session: SparkSession) -> None:
    """Raise `ExecutorError` when the session was stopped."""
    if session.client.is_closed:
        raise ExecutorError("the Spark Connect session was stopped; make a new one and a new executor from it")


def run_frame(
    session: SparkSession,
    frame: DataFrame,
    run: Callable[[Iterator[Any]], Iterator[Any]],
    name: str,
    *,
    barrier: bool = False,
) -> Generator[Outcome]:
    """Yield the outcomes of ``frame.mapInArrow(run)`` as they come, in the order of the partitions.

    The job is ended when the iterator is closed before its end.
    """
    rows = _rows(session, frame.mapInArrow(run, PIECES, barrier), name)
    with closing(rows):
        for _, outcome in join_pieces(rows):
            yield outcome


def _rows(session: SparkSession, frame: DataFrame, name: str) -> Generator[Any]:
    """Yield a frame's rows; whoever leaves early ends the job."""
    tag = f"strombus-{name}-{uuid.uuid4().hex}"
    with translated():
        try:
            with tagged(session, tag):  # the request goes out with the first row
                rows = iter(frame.toLocalIterator())
                first = next(rows, None)
            if first is not None:
                yield first
                yield from rows
        except BaseException:
            with suppress(Exception):  # the first error counts: the server may be gone
                session.interruptTag(tag)
            raise


@contextmanager
def tagged(session: SparkSession, tag: str) -> Iterator[None]:
    """Tag what this thread starts; the caller's own tags stay."""
    session.addTag(tag)
    try:
        yield
    finally:
        session.removeTag(tag)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what Spark Connect raises into Strombus's errors."""
    import grpc
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        raise explain(str(error), MISSING) from error
    except grpc.RpcError as error:
        raise ExecutorError(f"the Spark Connect server does not answer: {error}") from error


def setting(session: SparkSession, name: str, default: str = "") -> str:
    """Return a setting of the server's application."""
    with translated():
        return str(session.conf.get(name, None) or default)  # a default is checked by type


def probe(session: SparkSession) -> list[Probed]:
    """Run a short task in each slot; Strombus need not be there."""
    rows = _rows(
        session,
        session.range(0, PROBED).mapInArrow(_make_probe(), "host string, python string, version string, reason string"),
        "probe",
    )
    return [tuple(row) for row in rows]


def _make_probe() -> Callable[[Iterator[Any]], Iterator[Any]]:
    """Return a function that travels by value, because it is nested: workers need no Strombus to run it."""
    look = make_probe()

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for _ in batches:
            pass
        for found in look([0]):
            columns = [pa.array([value]) for value in found]
            yield pa.RecordBatch.from_arrays(columns, ["host", "python", "version", "reason"])

    return run
