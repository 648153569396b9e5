"""A gang on Spark Connect: one barrier ``mapInArrow``, watched by what its members say."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq

from strombus.errors import ConfigurationError, ExecutorError, GangError, GangUnavailable
from strombus.executors.base import Control
from strombus.executors.board import Board, new_run_id
from strombus.executors.calls import dump, load
from strombus.executors.mailbox import MailboxServer
from strombus.executors.rendezvous import RendezvousServer
from strombus.executors.spark_barrier import BarrierJob
from strombus.executors.spark_connect_jobs import run_frame, setting, tagged
from strombus.executors.spark_connect_tasks import ArrowBody
from strombus.executors.spark_gang import BodyOnPart
from strombus.executors.spark_session import ask_for_slots
from strombus.types import Capacity, Event, NativePartition

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession

__all__ = ["run_gang"]

DIAL = 3.0
"""Seconds in which a worker must reach the driver's socket."""

LOST = re.compile(r"barrier task \w+\(\d+, (\d+)\) finished unsuccessfully[^\n]*")
"""How Spark says which task made it give up a barrier stage."""

Server = RendezvousServer | MailboxServer


def run_gang(
    session: SparkSession,
    body: Callable[..., Any],
    payloads: Sequence[Any],
    shared: Any,
    timeout: float,
    on_event: Callable[[int, Event], None] | None,
    control: Control | None,
    attempt: int,
    *,
    capacity: Capacity,
    directory: str | None,
) -> list[Any]:
    """Run ``body(member, shared_value, payload)`` for all payloads at the same time; see `Executor.gang`."""
    _check(session, payloads, capacity)
    pickled = tuple(dump(payload, f"payload {rank}") for rank, payload in enumerate(payloads))
    call = dump(body, "the body")
    with ExitStack() as stack:
        server = _serve(stack, session, len(payloads), timeout, attempt, capacity, directory)
        tickets = [server.ticket(rank) for rank in range(len(payloads))]
        on_part = ArrowBody(BodyOnPart(call, shared, capacity.threads, tickets, False), pickled)
        job = stack.enter_context(_BarrierJob(session, on_part, len(payloads)))
        try:
            server.board.supervise(partial(job.check, server.board), on_event, control)
            return [load(one.head, one.buffers) for one in job.results(server.board)]
        except GangError as error:
            failed = job.with_cause(server.board, error)
            raise failed from failed.__cause__


def _check(session: SparkSession, payloads: Sequence[Any], capacity: Capacity) -> None:
    if any(isinstance(payload, NativePartition) for payload in payloads):
        raise ConfigurationError("Spark Connect cannot bring a DataFrame's partitions to the members of a gang")
    if setting(session, "spark.dynamicAllocation.enabled", "false").lower() == "true":
        raise ExecutorError(
            "Spark runs no gang (barrier stage) under dynamic allocation: start the Spark Connect server with "
            "--conf spark.dynamicAllocation.enabled=false, or train with ParameterAveragingTrainingMaster"
        )
    if capacity.slots is not None and capacity.slots < len(payloads):
        raise GangUnavailable(
            f"a gang of {len(payloads)} members needs {len(payloads)} slots, but Spark runs {capacity.slots} tasks at "
            "the same time: ask for fewer workers, or start the Spark Connect server with more slots, "
            + ask_for_slots(setting(session, "spark.master"), len(payloads), capacity.threads)
        )


def _serve(
    stack: ExitStack,
    session: SparkSession,
    size: int,
    timeout: float,
    attempt: int,
    capacity: Capacity,
    directory: str | None,
) -> Server:
    """Open the meeting place: a socket of this program where workers reach it, else the directory."""
    run_id = new_run_id()
    host = _own_address(session, capacity)
    try:
        server = stack.enter_context(RendezvousServer(size, run_id, attempt, timeout, host))
    except zmq.ZMQError as error:
        raise ExecutorError(
            f"cannot listen on {host} ({error}): STROMBUS_HOST must be an address of this host"
        ) from error
    address = server.ticket(0).address
    cut_off = _cut_off(session, address, size)
    if not cut_off:
        return server
    if directory is None:
        raise ExecutorError(
            f"executors cannot reach this program at {address} ({cut_off}): set the environment variable "
            "STROMBUS_HOST to an address of this host that they reach, or carry the gang's messages through storage "
            "that both reach: SparkConnectExecutor(session, directory=...)"
        )
    return stack.enter_context(MailboxServer(size, run_id, attempt, timeout, directory))


def _own_address(session: SparkSession, capacity: Capacity) -> str:
    """Return STROMBUS_HOST, else this host's address as the workers most likely reach it."""
    if named := os.environ.get("STROMBUS_HOST"):
        return named
    towards = str(session.client.host)
    found = _source_towards(towards)
    if ipaddress.ip_address(found).is_loopback and set(capacity.hosts) - {socket.gethostname()}:
        return _source_towards("192.0.2.1")  # a server on this host, with executors elsewhere
    return found


def _source_towards(host: str) -> str:
    with suppress(OSError):
        family, kind, *_, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as one:
            one.connect(address)
            return str(one.getsockname()[0])
    return "127.0.0.1"


def _cut_off(session: SparkSession, address: str, size: int) -> str:
    """Have as many workers as the gang has members dial `address`; return why the first of them could not."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    frame = session.range(0, size, 1, size).mapInArrow(_make_dial(host.strip("[]"), int(port)), "error string")
    tag = f"strombus-dial-{uuid.uuid4().hex}"
    with tagged(session, tag):
        return next((str(row.error) for row in frame.collect() if row.error), "")


def _make_dial(host: str, port: int) -> Callable[[Iterator[Any]], Iterator[Any]]:
    def dial(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for _ in batches:
            error = ""
            try:
                socket.create_connection((host, port), DIAL).close()
            except OSError as failure:
                error = f"{socket.gethostname()}: {failure}"
            yield pa.RecordBatch.from_arrays([pa.array([error])], ["error"])

    return dial


class _BarrierJob(BarrierJob):
    """A barrier job of a session.

    A client of Spark Connect hears of a lost task when Spark gives the whole stage up, from the error's text. Where
    Spark starts the stage again instead, the board refuses whoever claims a rank a second time.
    """

    def __init__(self, session: SparkSession, on_part: ArrowBody, size: int) -> None:
        super().__init__()
        self._session, self._on_part, self._size = session, on_part, size

    def _run(self) -> list[Any]:
        members = self._session.range(0, self._size, 1, self._size)
        with tagged(self._session, self._tag):
            found = dict(run_frame(self._session, members, self._on_part, "gang", barrier=True))
        return [found[rank] for rank in range(self._size)]

    def _cancel(self) -> None:
        self._session.interruptTag(self._tag)

    def check(self, board: Board) -> bool:
        """Tell `board` whom Spark has lost, and say whether anybody; raise when the job failed for another reason."""
        if self._error is None:
            return False
        lost = LOST.search(str(getattr(self._error, "traceback", "")))
        if lost is None or int(lost[1]) >= self._size:
            raise self._error
        board.lose(int(lost[1]), lost[0])
        return True
