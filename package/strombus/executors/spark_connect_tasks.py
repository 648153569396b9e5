"""What runs inside Python workers under Spark Connect: functions of Arrow batches, for ``mapInArrow``."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec

from strombus.errors import ExecutorError
from strombus.executors.calls import Failure, load
from strombus.executors.spark_tasks import MergeGroup, Outcome, TaskOnPart
from strombus.executors.values import LOADED, Packed

__all__ = ["PIECES", "ArrowBody", "ArrowMerge", "ArrowTask", "StoredValue", "join_pieces"]

PIECES = "position long, group long, piece long, pieces long, data binary"
"""Columns in which results travel: one row for each MiB, since a message of gRPC is bounded."""

PIECE = 2**20


@dataclass(frozen=True)
class StoredValue:
    """A shared value in a file that every worker can read."""

    uri: str
    key: str

    def get(self) -> Any:
        """Return the value, loaded once in each process."""
        return LOADED.get(self.key, self._load)

    def look(self, view: Callable[[Any], Any]) -> Any:
        """Return ``view(value)``."""
        return view(self.get())

    def free(self) -> None:
        """Do nothing: the driver frees."""

    def _load(self) -> Any:
        try:
            with fsspec.open(self.uri, "rb") as file:
                packed = pickle.load(file)
        except OSError as error:
            raise ExecutorError(
                f"a worker cannot read the shared value {self.uri} ({error}): the `directory` of a "
                "SparkConnectExecutor must be reached by every executor"
            ) from error
        return load(packed.head, packed.buffers)


@dataclass(frozen=True)
class ArrowTask:
    """Run a task on partitions, and give its outcomes as rows of `PIECES`.

    Parameters
    ----------
    task : TaskOnPart
    parts : mapping of int to bytes, optional
        Pickled parts by the number that the partition's rows carry. None where the partition is the part.
    open : callable, optional
        Turns a partition's batches into the objects that tasks are given.
    partitions : int
        How many partitions the collection had when it was counted.
    fan_in : int
        Outcomes in one group of the merge tree that takes them.
    """

    task: TaskOnPart
    parts: Mapping[int, bytes] | None = None
    open: Callable[[Iterator[Any]], Iterator[Any]] | None = None
    partitions: int = 0
    fan_in: int = 1

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        index = _partition()
        for outcome in self._outcomes(index, batches):
            yield from _as_pieces(outcome, self.fan_in)
        for _ in batches:
            pass  # Spark ends a process, and with it every cache, that has left rows unread

    def _outcomes(self, index: int, batches: Iterator[Any]) -> Iterator[Outcome]:
        if self.parts is not None:
            numbers = (number for batch in batches for number in batch.column(0).to_pylist())
            yield from self.task(index, ((number, self.parts[number]) for number in numbers))
        elif index < self.partitions:
            assert self.open is not None
            yield from self.task(index, self.open(batches))
        else:
            try:
                raise ExecutorError(
                    f"the DataFrame had {self.partitions} partitions when its rows were counted, and has more now: "
                    "cache or checkpoint it, or write it with strombus.data.export first"
                )
            except ExecutorError as error:
                yield -1, Failure.of(error)


@dataclass(frozen=True)
class ArrowMerge:
    """Merge the groups of outcomes that a shuffle has brought into one partition.

    Parameters
    ----------
    merge : MergeGroup
    fan_in : int
        Groups in one group of the level above.
    """

    merge: MergeGroup
    fan_in: int = 1

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        rows = (row for batch in batches for row in zip(*(column.to_pylist() for column in batch), strict=True))
        groups = defaultdict(list)
        for group, outcome in join_pieces(rows):
            groups[group].append((group, outcome))
        for group in sorted(groups):
            for outcome in self.merge(group, groups.pop(group)):
                yield from _as_pieces(outcome, self.fan_in)


@dataclass(frozen=True)
class ArrowBody:
    """Run a gang's member in its partition of a barrier stage; `body` is a `BodyOnPart`."""

    body: Callable[[int, Iterable[Any]], Iterator[Any]]
    payloads: tuple[bytes, ...]

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            for rank in batch.column(0).to_pylist():
                for result in self.body(rank, [self.payloads[rank]]):
                    yield from _as_pieces((rank, result), 1)


def _partition() -> int:
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    return int(context.partitionId())


def _as_pieces(outcome: tuple[int, Packed | Any], fan_in: int) -> Iterator[Any]:
    import pyarrow as pa

    position, result = outcome
    data = pickle.dumps(result, protocol=5)
    count = max(1, -(-len(data) // PIECE))
    names = ["position", "group", "piece", "pieces", "data"]
    for piece in range(count):
        row = (position, position // fan_in, piece, count)
        columns = [pa.array([value], pa.int64()) for value in row]
        columns.append(pa.array([data[piece * PIECE : (piece + 1) * PIECE]], pa.binary()))
        yield pa.RecordBatch.from_arrays(columns, names)


def join_pieces(rows: Iterable[tuple[int, int, int, int, bytes]]) -> Iterator[tuple[int, Outcome]]:
    """Yield (group, outcome) for each whole outcome among rows of `PIECES`, whatever their order."""
    waiting: dict[int, dict[int, bytes]] = {}
    for position, group, piece, pieces, data in rows:
        there = waiting.setdefault(position, {})
        there[piece] = data
        if len(there) == pieces:
            blob = b"".join(there[number] for number in range(pieces))
            del waiting[position]
            yield group, (position, pickle.loads(blob))
