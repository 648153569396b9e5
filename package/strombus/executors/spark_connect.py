"""Run on Spark Connect, which has no RDDs and no broadcasts: tasks as ``mapInArrow``, a gang as its barrier stage."""

from __future__ import annotations

import pickle
import posixpath
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from strombus.errors import ConfigurationError, ExecutorError
from strombus.executors.base import Control, Executor, Member, Shared, Task, merge_plan
from strombus.executors.calls import dump
from strombus.executors.spark_barrier import refuse_to_survive
from strombus.executors.spark_concerns import READ, concerns_of
from strombus.executors.spark_connect_gang import run_gang
from strombus.executors.spark_connect_jobs import MISSING, Source, ensure_running, probe, run_frame, setting
from strombus.executors.spark_connect_tasks import PIECES, ArrowMerge, ArrowTask, StoredValue
from strombus.executors.spark_jobs import Probed, check_probed
from strombus.executors.spark_tasks import MergeGroup, Outcome, TaskOnPart, fold, open_outcome
from strombus.executors.values import Packed
from strombus.files import open_storage
from strombus.types import Capacity, Event, Finding

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession

__all__ = ["INLINE", "ConnectShared", "SparkConnectExecutor"]

T = TypeVar("T")
R = TypeVar("R")

WAVE = 4
"""Parts run in one job, in multiples of the slots: what bounds the results that wait on the driver."""

INLINE = 16 << 20
"""Bytes of a shared value that travels inside each job's plan.

A plan is parsed, copied and kept by the server: one of 32 MB took 3 s, one of 100 MB ended a server with Spark's
default memory (measured on loopback).
"""

STORED = 1 << 20
"""Bytes from which a shared value goes to the directory, where there is one."""


class ConnectShared(Generic[T]):
    """A value on the driver, and how workers come by it: in the plan of each job, or in a file."""

    def __init__(self, value: T, directory: str | None) -> None:
        self._value: T | None = value
        self._directory = directory
        self._carrier: Packed | StoredValue | None = None
        self._freed = False

    def get(self) -> T:
        """Return the value."""
        self._check()
        return self._value  # type: ignore[return-value]

    def look(self, view: Callable[[T], R]) -> R:
        """Return ``view(value)``."""
        return view(self.get())

    def free(self) -> None:
        """Forget the value and remove its file; a second call does nothing."""
        carrier, self._carrier = self._carrier, None
        self._freed, self._value = True, None
        if isinstance(carrier, StoredValue):
            with suppress(FileNotFoundError):
                files, path = open_storage(carrier.uri)
                files.rm(path)

    def carrier(self) -> Packed | StoredValue:
        """Return what a task is given to read the value from.

        Raises
        ------
        ConfigurationError
            When it cannot be pickled, or is too large to travel in a plan and there is no directory.
        """
        self._check()
        if self._carrier is None:
            packed = Packed.of(self._value)
            size = packed.nbytes + len(packed.head)
            if self._directory is not None and size > STORED:
                self._carrier = _store(packed, self._directory)
            elif size > INLINE:
                raise ConfigurationError(
                    f"a shared value of {size / 2**20:.0f} MiB is too large for the plan of a Spark Connect job "
                    f"({INLINE >> 20} MiB): name storage that this program and every executor reach, "
                    "backend=SparkConnectExecutor(session, directory=...)"
                )
            else:
                self._carrier = packed
        return self._carrier

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.carrier(),)

    def _check(self) -> None:
        if self._freed:
            raise ExecutorError("this shared value was freed; share it again")


def _itself(carrier: Any) -> Any:
    return carrier


def _store(packed: Packed, directory: str) -> StoredValue:
    files, root = open_storage(directory)
    files.makedirs(root, exist_ok=True)
    uri = posixpath.join(directory, f"value-{packed.key}")
    with files.open(posixpath.join(root, f"value-{packed.key}"), "wb") as file:
        pickle.dump(packed, file, protocol=5)
    return StoredValue(uri, packed.key)


class SparkConnectExecutor(Executor):
    """Run on the application of a Spark Connect server.

    Parameters
    ----------
    session : pyspark.sql.connect.session.SparkSession, optional
        Borrowed: never stopped, its configuration unchanged. By default the active one.
    directory : path or URI, optional
        Storage that this program and every executor reach. Shared values of more than 1 MiB then travel through it, and
        may be larger than 16 MiB; a gang's messages do where workers cannot dial this program.

    Raises
    ------
    ExecutorError
        When the session was stopped, or there is none.
    """

    name = "spark-connect"

    def __init__(self, session: SparkSession | None = None, *, directory: str | PathLike[str] | None = None) -> None:
        self.session: SparkSession = _active() if session is None else session
        ensure_running(self.session)
        self.directory = (
            None if directory is None else posixpath.join(fspath(directory), f"strombus-{uuid.uuid4().hex}")
        )
        self._threads = int(setting(self.session, "spark.task.cpus", "1"))
        self._parallel = 0  # partitions that Spark makes by itself, as of the last probe

    def capacity(self) -> Capacity:
        """Return the tasks that run at the same time, their hosts, and ``spark.task.cpus``; a short job.

        The slots are None with dynamic allocation, and where a setting hides them (``spark.default.parallelism``).
        """
        ensure_running(self.session)
        places = self._probe()
        hosts = tuple(sorted({host for host, *_ in places}))
        return Capacity(self._slots(len(places)), hosts, self._threads)

    def _probe(self) -> list[Probed]:
        places = probe(self.session)
        self._parallel = len(places)
        return places

    def _slots(self, partitions: int) -> int | None:
        """Return the slots, given the partitions that Spark makes where nobody says how many."""
        if setting(self.session, "spark.dynamicAllocation.enabled", "false").lower() == "true":
            return None
        executors, cores = (setting(self.session, f"spark.executor.{name}") for name in ("instances", "cores"))
        if executors and cores:
            return int(executors) * (int(cores) // self._threads)
        if any(
            setting(self.session, name)
            for name in ("spark.default.parallelism", "spark.sql.leafNodeDefaultParallelism")
        ):
            return None
        return max(1, partitions // self._threads)

    def share(self, value: T) -> Shared[T]:
        """Pickle `value`; it travels in the plan of each job, or through the directory.

        Raises
        ------
        ConfigurationError
            When it cannot be pickled, or has more than 16 MiB and there is no directory.
        """
        ensure_running(self.session)
        shared = ConnectShared(value, self.directory)
        shared.carrier()
        return shared

    def map(
        self, task: Task, parts: Sequence[Any], shared: Shared[Any] | tuple[Shared[Any], ...] | None = None
    ) -> Iterator[Any]:
        """Yield the results in the order of `parts`.

        Small descriptions run in waves of four times the slots, a DataFrame's partitions in one job.
        """
        ensure_running(self.session)
        source = Source(self.session, parts)
        return self._stream(self._on_part(task, shared, source), source)

    def _on_part(self, task: Task, shared: Any, source: Source) -> TaskOnPart:
        return TaskOnPart.of(task, _carriers(shared), self._threads, source.numbers)

    def _stream(self, task: TaskOnPart, source: Source) -> Iterator[Any]:
        with closing(self._outcomes(task, source)) as outcomes:
            for outcome in outcomes:
                yield open_outcome(outcome)

    def _outcomes(self, task: TaskOnPart, source: Source) -> Generator[Outcome]:
        size = len(source) if source.held is not None else self._wave()
        for start in range(0, len(source), size):
            stop = min(start + size, len(source))
            frame, parts = source.take(start, stop)
            found = run_frame(self.session, frame, _arrow_task(task, source, parts), task.name)
            yield from _in_order(found, range(start, stop))

    def _wave(self) -> int:
        if not self._parallel:
            self._probe()
        return WAVE * max(1, self._parallel // self._threads)

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

        Waits for the result: the last level is merged here, those before it on the cluster. Raises `TaskError` at once.
        """
        if not parts:
            raise ConfigurationError("map_reduce needs at least one part, got none")
        ensure_running(self.session)
        source = Source(self.session, parts)
        on_part = self._on_part(task, shared, source)
        inner = merge_plan(len(parts), depth)[:-1]
        outcomes = self._tree(on_part, source, inner, merge) if inner else self._outcomes(on_part, source)
        with closing(outcomes):
            merged = fold(outcomes, merge)
        return ConnectShared(merged if finish is None else finish(merged), self.directory)

    def _tree(
        self,
        task: TaskOnPart,
        source: Source,
        levels: list[list[tuple[int, ...]]],
        merge: Callable[[R, R], R],
    ) -> Generator[Outcome]:
        """Bring each group of a level together by a shuffle, all levels in one job."""
        merge_group = MergeGroup(dump(merge, "the merge function"))
        fan_ins = [len(groups[0]) for groups in levels]
        frame, parts = source.take(0, len(source))
        run: Any = _arrow_task(task, source, parts, fan_ins[0])
        for groups, fan_in in zip(levels, [*fan_ins[1:], 1], strict=True):
            frame = frame.mapInArrow(run, PIECES).repartition(len(groups), "group")
            run = ArrowMerge(merge_group, fan_in)
        return _in_order(run_frame(self.session, frame, run, task.name), range(len(levels[-1])))

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
        """Run the members as one barrier stage; a member that Spark starts again is refused."""
        refuse_to_survive(survive)
        ensure_running(self.session)
        return run_gang(
            self.session,
            body,
            payloads,
            _carriers(shared),
            timeout,
            on_event,
            control,
            attempt,
            capacity=self.capacity(),
            directory=self.directory,
        )

    def check(self) -> None:
        """Make sure that every executor can import Strombus, in this program's version."""
        ensure_running(self.session)
        check_probed(self._probe(), MISSING)

    def concerns(self) -> list[Finding]:
        """Return settings of the server's application that cost time or forbid a gang."""
        ensure_running(self.session)
        settings = {name: value for name in READ if (value := setting(self.session, name))}
        return concerns_of(settings, settings.get("spark.master", "").startswith("local["))

    def close(self) -> None:
        """Remove what is left in the directory; the session is the caller's."""
        if self.directory is not None:
            with suppress(FileNotFoundError):
                files, root = open_storage(self.directory)
                files.rm(root, recursive=True)


def _active() -> SparkSession:
    from pyspark.sql.connect.session import SparkSession

    session = SparkSession.getActiveSession()
    if session is None:
        raise ExecutorError(
            "there is no active Spark Connect session: make one with SparkSession.builder.remote(...).getOrCreate()"
        )
    return session


def _carriers(shared: Any) -> Any:
    """Return what tasks read shared values from; made here, since an error inside a pickler would lose its type."""
    if isinstance(shared, tuple):
        return tuple(_carriers(one) for one in shared)
    return shared.carrier() if isinstance(shared, ConnectShared) else shared


def _arrow_task(task: TaskOnPart, source: Source, parts: dict[int, bytes] | None, fan_in: int = 1) -> ArrowTask:
    if source.held is None:
        return ArrowTask(task, parts, fan_in=fan_in)
    return ArrowTask(task, None, source.held.open, source.held.partitions, fan_in)


def _in_order(outcomes: Generator[Outcome], positions: range) -> Generator[Outcome]:
    """Yield the outcomes in the order of their positions, each once; a stray failure at once.

    Closing it ends the job. Left to the garbage collector, that would run in whatever thread collects, and hang where
    the thread is one that is just being started: ending a job starts threads too.
    """
    waiting: dict[int, Outcome] = {}
    due = iter(positions)
    wanted = next(due, None)
    with closing(outcomes):
        for outcome in outcomes:
            if outcome[0] not in positions:
                yield outcome
            waiting[outcome[0]] = outcome
            while wanted in waiting:
                yield waiting.pop(wanted)
                wanted = next(due, None)
    if wanted is not None:
        raise ExecutorError(
            f"part {wanted} of {len(positions)} gave no result: Spark ran fewer tasks than were asked for"
        )
