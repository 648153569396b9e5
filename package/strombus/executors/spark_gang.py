"""A gang on Spark: one barrier stage, watched from the driver and never relaunched."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq

from strombus.errors import ConfigurationError, ExecutorError, GangError, GangUnavailable, TaskError
from strombus.executors.base import Control
from strombus.executors.board import Board, new_run_id
from strombus.executors.calls import Failure, dump, load
from strombus.executors.members import OpenTicket, Superseded, load_body, run_member
from strombus.executors.rendezvous import RendezvousServer
from strombus.executors.spark_barrier import POLL, BarrierJob
from strombus.executors.spark_jobs import Source, advise_on_memory, explain, named, run_job
from strombus.executors.spark_session import ask_for_slots, capacity_of, is_dynamic, is_local, task_cpus
from strombus.executors.values import Packed, as_values
from strombus.types import Event

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.rdd import RDD

__all__ = ["BodyOnPart", "run_gang"]


@dataclass(frozen=True)
class BodyOnPart:
    """Run a gang's body on a partition that holds a pickled payload, or that is the payload itself.

    It returns its failure, for a stage whose task raises is started again, whole.

    Parameters
    ----------
    tickets : sequence of OpenTicket
        By index of the partition.
    native : bool
        Whether the partition is the payload.
    """

    body: bytes
    shared: Any
    threads: int
    tickets: Sequence[OpenTicket]
    native: bool

    def __call__(self, index: int, items: Iterable[Any]) -> Iterator[Packed | Failure | Superseded]:
        body = load_body(self.body)

        def run(member: Any, shared: Any, payload: Iterable[Any]) -> Packed:
            own = iter(payload) if self.native else load(*payload)
            return Packed.of(body(member, shared, own), "the result")

        with self.tickets[index].member() as member:
            yield run_member(member, run, lambda: as_values(self.shared), items, self.threads)


def run_gang(
    context: SparkContext,
    body: Callable[..., Any],
    payloads: Sequence[Any],
    shared: Any,
    timeout: float,
    on_event: Callable[[int, Event], None] | None,
    control: Control | None,
    attempt: int,
    profile: Any = None,
) -> list[Any]:
    """Run ``body(member, shared_value, payload)`` for all payloads at the same time; see `Executor.gang`."""
    _check_slots(context, len(payloads), profile)
    rdd, native = _lay_out(context, payloads, profile)
    call = dump(body, "the body")
    with ExitStack() as stack:
        server = _serve(stack, context, len(payloads), timeout, attempt)
        tickets = [server.ticket(rank) for rank in range(len(payloads))]
        on_part = BodyOnPart(call, shared, task_cpus(context, profile), tickets, native)
        job = stack.enter_context(_BarrierJob(context, on_part, rdd, len(payloads)))
        try:
            server.board.supervise(partial(job.check, server.board), on_event, control)
            return [load(one.head, one.buffers) for one in job.results(server.board)]
        except GangError as error:
            failed = job.with_cause(server.board, error)
            raise failed from failed.__cause__


def _lay_out(context: SparkContext, payloads: Sequence[Any], profile: Any) -> tuple[RDD[Any], bool]:
    """Return an RDD with one partition for each member, and whether its partitions are the payloads themselves."""
    source = Source(context, payloads, profile)
    if source.numbers is None:
        pickled = [dump(payload, f"payload {rank}") for rank, payload in enumerate(payloads)]
        rdd = context.parallelize(pickled, len(pickled))
        return rdd if profile is None else rdd.withResources(profile), False
    rdd, partitions = source.take(0, len(payloads))
    if partitions != list(range(rdd.getNumPartitions())):
        raise ConfigurationError(
            f"a gang over native partitions takes all {rdd.getNumPartitions()} of one RDD in order, got {partitions}: "
            "Spark starts no barrier stage on some of them"
        )
    return rdd, True


def _check_slots(context: SparkContext, size: int, profile: Any) -> None:
    if is_dynamic(context):
        raise ExecutorError(
            "Spark runs no gang (barrier stage) under dynamic allocation: set "
            "--conf spark.dynamicAllocation.enabled=false, or train with ParameterAveragingTrainingMaster"
        )
    slots = capacity_of(context, profile).slots or 0
    if slots < size:
        which = "" if profile is None else " of that profile"
        flags = ask_for_slots(str(context.master), size, task_cpus(context, profile))
        raise GangUnavailable(
            f"a gang of {size} members needs {size} slots, but Spark runs {slots} tasks{which} at the same time: "
            f"ask for fewer workers, or for more slots: {flags}"
        )


def _serve(stack: ExitStack, context: SparkContext, size: int, timeout: float, attempt: int) -> RendezvousServer:
    """Open the meeting place on the address at which executors reach this driver."""
    host = "127.0.0.1" if is_local(context) else context.getConf().get("spark.driver.host", "")
    try:
        address = str(socket.getaddrinfo(host, None)[0][4][0])
        return stack.enter_context(RendezvousServer(size, new_run_id(), attempt, timeout, address))
    except (OSError, zmq.ZMQError) as error:
        raise ExecutorError(
            f"members cannot reach this driver at spark.driver.host={host} ({error}); "
            "set it to an address of this machine that executors can reach"
        ) from error


class _BarrierJob(BarrierJob):
    """A barrier job of a `SparkContext`, whose tasks Spark lists."""

    def __init__(self, context: SparkContext, on_part: BodyOnPart, rdd: RDD[Any], size: int) -> None:
        from pyspark import InheritableThread

        super().__init__(InheritableThread)
        self._context = context
        self._on_part = on_part
        self._rdd, self._size = rdd, size
        self._looked = 0.0

    def _run(self) -> list[Any]:
        with named(self._context, f"Strombus: a gang of {self._size}", self._tag):
            gang = self._rdd.barrier().mapPartitionsWithIndex(self._on_part)
            return run_job(gang, range(self._size))

    def _cancel(self) -> None:
        self._context.cancelJobsWithTag(self._tag)

    def check(self, board: Board) -> bool:
        """Tell `board` whom Spark has lost, and say whether anybody; raise when the job failed for another reason."""
        if time.monotonic() - self._looked < POLL:
            return False
        self._looked = time.monotonic()
        tasks = self._tasks()
        for rank, reason in tasks.get("FAILED", {}).items():
            known = explain(reason)
            if not isinstance(known, TaskError):
                raise known
            board.lose(rank, reason.strip().splitlines()[0] + advise_on_memory(reason))
        if "FAILED" in tasks:
            for rank in tasks.get("KILLED", {}):
                board.lose(rank, "Spark ended it, because another member was lost")
        elif self._error is not None:
            raise self._error
        return "FAILED" in tasks

    def _tasks(self) -> dict[str, dict[int, str]]:
        """Return the error of each rank by the status of its task, as of the stage's first attempt."""
        from py4j.protocol import Py4JError

        found: dict[str, dict[int, str]] = {}
        with suppress(Py4JError):  # without this list, which is not in Spark's public API, leases tell, later
            store = self._context._jsc.sc().statusStore()
            for job in self._context._jsc.sc().statusTracker().getJobIdsForTag(self._tag):
                for stage in self._context.statusTracker().getJobInfo(job).stageIds:
                    for task in _each(store.taskList(stage, 0, 2**31 - 1)):
                        reason = task.errorMessage()
                        text = reason.get() if reason.isDefined() else "no reason given"
                        found.setdefault(task.status(), {})[task.index()] = text
        return found

    def _unfinished(self) -> int:
        return min(self._tasks().get("RUNNING", {0: ""}))


def _each(sequence: Any) -> Iterator[Any]:
    for index in range(sequence.size()):
        yield sequence.apply(index)
