"""Run on Apache Spark: tasks as RDD jobs, shared values as broadcasts, a gang as one barrier stage."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from strombus.errors import ConfigurationError, ExecutorError
from strombus.executors.base import Control, Executor, Member, Shared, Task, merge_plan
from strombus.executors.calls import dump
from strombus.executors.spark_barrier import refuse_to_survive
from strombus.executors.spark_concerns import concerns_of
from strombus.executors.spark_gang import run_gang
from strombus.executors.spark_jobs import Source, check_workers, named, run_job
from strombus.executors.spark_session import (
    capacity_of,
    connect_session_of,
    context_of,
    ensure_running,
    is_local,
    known_profile,
    open_context,
    task_cpus,
)
from strombus.executors.spark_tasks import (
    KeyByGroup,
    MergeGroup,
    Outcome,
    RemoteShared,
    TaskOnPart,
    fold,
    open_outcome,
)
from strombus.executors.values import Packed, as_tuple
from strombus.types import Capacity, Event, Finding

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

__all__ = ["SparkExecutor", "SparkShared", "open_spark"]

T = TypeVar("T")
R = TypeVar("R")

WAVE = 4
"""Parts run in one job, in multiples of the slots: what bounds the results that wait on the driver."""


class SparkShared(Generic[T]):
    """A value on the driver that is broadcast when a job first uses it."""

    def __init__(self, context: SparkContext, value: T) -> None:
        self._context = context
        self._value: T | None = value
        self._broadcast: Any = None
        self._freed = False
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the value."""
        self._check()
        return self._value  # type: ignore[return-value]

    def look(self, view: Callable[[T], R]) -> R:
        """Return ``view(value)``."""
        return view(self.get())

    def free(self) -> None:
        """Remove the value from the cluster and from here; a second call does nothing."""
        with self._lock:
            broadcast, self._broadcast = self._broadcast, None
            self._freed, self._value = True, None
        if broadcast is not None and self._context._jsc is not None:
            broadcast.destroy()

    def broadcast(self) -> Any:
        """Return Spark's broadcast of the pickled value."""
        self._check()
        with self._lock:
            if self._broadcast is None:
                self._broadcast = self._context.broadcast(Packed.of(self._value))
            return self._broadcast

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteShared, (self.broadcast(),)

    def _check(self) -> None:
        if self._freed:
            raise ExecutorError("this shared value was freed; share it again")


class SparkExecutor(Executor):
    """Run on a Spark application (Classic; see `SparkConnectExecutor` for Spark Connect).

    Parameters
    ----------
    spark : SparkSession or SparkContext, optional
        Borrowed: never stopped, its configuration unchanged. By default the active one, else one that is
        opened with the master of spark-submit or of Spark's configuration, else ``local[*]``, and closed by
        `close`.
    profile : pyspark.resource.ResourceProfile, optional
        What each task and member needs (stage-level scheduling); stages that merge results have the application's
        own profile. One of task requests alone is for any cluster of Spark's; one of executor requests needs dynamic
        allocation, under which Spark runs no gang.

    Raises
    ------
    ExecutorError
        For a Spark Connect session, or one that was stopped.
    """

    name = "spark"
    _limit: int | None = None
    """Tasks that may run at a time, where they are not all that Spark has slots for."""

    def __init__(self, spark: SparkSession | SparkContext | None = None, *, profile: Any = None) -> None:
        context = context_of(spark)
        self._opened = context is None
        self.context: SparkContext = open_context() if context is None else context
        self.profile = None if profile is None else known_profile(self.context, profile)
        self._threads = task_cpus(self.context, self.profile)  # once: PySpark copies the whole configuration to read it

    def capacity(self) -> Capacity:
        """Return the tasks that run at the same time, their hosts, and ``spark.task.cpus``.

        Waits up to 30 s for executors that are still starting. With dynamic allocation the slots are None.
        """
        ensure_running(self.context)
        found = capacity_of(self.context, self.profile)
        return found if self._limit is None else replace(found, slots=self._limit)

    def split(self, count: int) -> tuple[SparkExecutor, SparkExecutor | None]:
        """Return executors for `count` tasks and for as many more as fit beside them; see `Executor.split`.

        Which slots these are is for Spark to say. The second runs no more tasks at a time than that.
        """
        slots = self.capacity().slots
        if slots is None or slots <= count:
            return self, None
        second = copy.copy(self)
        second._opened, second._limit = False, slots - count
        return self, second

    def share(self, value: T) -> Shared[T]:
        """Broadcast `value`; each Python worker loads it once and keeps it while consecutive tasks use it."""
        ensure_running(self.context)
        shared = SparkShared(self.context, value)
        shared.broadcast()
        return shared

    def map(
        self, task: Task, parts: Sequence[Any], shared: Shared[Any] | tuple[Shared[Any], ...] | None = None
    ) -> Iterator[Any]:
        """Yield the results in the order of `parts`, which run in waves of four times the slots."""
        ensure_running(self.context)
        source = Source(self.context, parts, self.profile)
        return self._stream(self._on_part(task, shared, source), source)

    def _on_part(self, task: Task, shared: Any, source: Source) -> TaskOnPart:
        _broadcast(shared)
        return TaskOnPart.of(task, shared, self._threads, source.numbers)

    def _stream(self, task: TaskOnPart, source: Source) -> Iterator[Any]:
        for outcome in self._outcomes(task, source):
            yield open_outcome(outcome)

    def _outcomes(self, task: TaskOnPart, source: Source) -> Iterator[Outcome]:
        size = self._limit or WAVE * max(1, self.context.defaultParallelism // self._threads)
        for start in range(0, len(source), size):
            stop = min(start + size, len(source))
            with named(self.context, f"Strombus: {task.name}, parts {start} to {stop - 1} of {len(source)}"):
                rdd, partitions = source.take(start, stop)
                outcomes = run_job(rdd.mapPartitionsWithIndex(task, preservesPartitioning=True), partitions)
            yield from outcomes

    def map_reduce(
        self,
        task: Task,
        parts: Sequence[Any],
        merge: Callable[[R, R], R],
        shared: Shared[Any] | tuple[Shared[Any], ...] | None = None,
        *,
        depth: int = 2,
        finish: Callable[[R], Any] | None = None,
    ) -> Shared[Any]:
        """Run `task` on each part and merge in the order of `merge_plan`.

        Waits for the result: the last level is merged on the driver, those before it on the cluster. Raises
        `TaskError` at once.
        """
        if not parts:
            raise ConfigurationError("map_reduce needs at least one part, got none")
        ensure_running(self.context)
        source = Source(self.context, parts, self.profile)
        on_part = self._on_part(task, shared, source)
        inner = [] if self._limit else merge_plan(len(parts), depth)[:-1]
        outcomes = self._tree(on_part, source, inner, merge) if inner else self._outcomes(on_part, source)
        merged = fold(outcomes, merge)
        return SparkShared(self.context, merged if finish is None else finish(merged))

    def _tree(
        self,
        task: TaskOnPart,
        source: Source,
        levels: list[list[tuple[int, ...]]],
        merge: Callable[[R, R], R],
    ) -> list[Outcome]:
        rdd, _ = source.take(0, len(source))
        rdd = rdd.mapPartitionsWithIndex(task)
        merge_group = MergeGroup(dump(merge, "the merge function"))
        for groups in levels:
            keyed = rdd.map(KeyByGroup(len(groups[0]))).partitionBy(len(groups), int)
            rdd = keyed.mapPartitionsWithIndex(merge_group)
        with named(self.context, f"Strombus: {task.name}, {len(source)} parts, merged"):
            return run_job(rdd, range(len(levels[-1])))

    def gang(
        self,
        body: Callable[[Member, Any, Any], Any],
        payloads: Sequence[Any],
        shared: Shared[Any] | None = None,
        *,
        timeout: float,
        on_event: Callable[[int, Event], None] | None = None,
        control: Control | None = None,
        attempt: int = 0,
        survive: bool = False,
    ) -> list[Any]:
        """Run the members as one barrier stage that is never relaunched."""
        refuse_to_survive(survive)
        ensure_running(self.context)
        _broadcast(shared)
        return run_gang(self.context, body, payloads, shared, timeout, on_event, control, attempt, self.profile)

    def check(self) -> None:
        """Make sure that every executor can import Strombus, in the driver's version."""
        ensure_running(self.context)
        check_workers(self.context, capacity_of(self.context).slots)

    def concerns(self) -> list[Finding]:
        """Return settings of the application that cost time or forbid a gang."""
        ensure_running(self.context)
        return concerns_of(dict(self.context.getConf().getAll()), is_local(self.context))

    def links(self) -> dict[str, str]:
        """Return the address of the application's page, where it has one."""
        return {"Spark UI": str(page)} if (page := self.context.uiWebUrl) else {}

    def close(self) -> None:
        """Stop the Spark application if this executor opened it."""
        opened, self._opened = self._opened, False
        if opened:
            self.context.stop()


def open_spark(spark: Any = None) -> Executor:
    """Return the executor for a session or context, for the active one, or for an application that is opened now."""
    remote = connect_session_of(spark)
    if remote is None:
        return SparkExecutor(spark)
    from strombus.executors.spark_connect import SparkConnectExecutor

    return SparkConnectExecutor(remote)


def _broadcast(shared: Any) -> None:
    """Broadcast what is not yet, here: an error inside PySpark's pickler would lose its type."""
    for one in as_tuple(shared):
        if isinstance(one, SparkShared):
            one.broadcast()
