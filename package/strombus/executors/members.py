"""A gang member's end, engine-free: what a body sees, and the thread that moves its messages.

Driver and members speak in messages: a small JSON-able header and raw bytes. An engine gives a channel that
carries them: ZeroMQ (`strombus.executors.rendezvous`) or the Dask scheduler's queues. Upwards go ``hello``,
``beat``, ``exchange``, ``event``, ``met``, ``missed``, ``leaving``, ``failed`` and ``finished``; downwards
``welcome``, ``superseded``, ``beat``, ``exchange``, ``command``, ``stop`` and ``abort``.
"""

from __future__ import annotations

import json
import logging
import math
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NoReturn, Protocol

from strombus.errors import ConfigurationError, ExecutorError, GangTimeout
from strombus.executors.base import Member
from strombus.executors.calls import TRAINING, Failure, describe_place, keep_freed_memory, load, torch_guard
from strombus.types import ClockBounds, Event

__all__ = [
    "BEAT",
    "GRACE",
    "LEASE",
    "LEAVE",
    "LinkedMember",
    "MemberChannel",
    "MemberPump",
    "Message",
    "OpenTicket",
    "Superseded",
    "Ticket",
    "load_body",
    "plain",
    "run_member",
]

logger = logging.getLogger(__name__)

Message = tuple[dict[str, Any], bytes]

BEAT = 0.5
"""Seconds between two signs of life, in both directions."""
LEASE = 10.0
"""Seconds without a sign of life after which a member stops, or is given up as lost."""
LARGEST_PAYLOAD = 2**20
"""Bytes that a member may give to one exchange."""
LARGEST_EVENT = 2**23
"""Bytes that a member may give to one event."""
GRACE = 2.0
"""Seconds beyond `LEASE` that members get to notice that another one has failed."""
LEAVE = 25.0
"""Seconds that a member gets to end in order when its engine takes its worker away."""


@dataclass(frozen=True)
class Ticket:
    """What a member needs to know about its gang before it can speak; picklable."""

    rank: int
    size: int
    run_id: str
    attempt: int
    timeout: float


class OpenTicket(Protocol):
    """A `Ticket` that knows the channel by which its member speaks to the driver."""

    def member(self) -> AbstractContextManager[LinkedMember]:
        """Return what joins the gang when it is entered."""


@dataclass(frozen=True)
class Superseded:
    """What a body's second run returns: its first had already claimed the rank."""

    rank: int


class MemberChannel(Protocol):
    """Carries messages between one member and the driver; used by one thread."""

    def send(self, messages: list[Message]) -> None: ...

    def receive(self) -> list[Message]:
        """Return what has come, without waiting."""

    def close(self) -> None: ...


class MemberStopped(ExecutorError):
    """Raised in a member because another one has failed; never the cause."""


class LinkedMember:
    """A `Member` that speaks to the driver's `Board`; thread-safe."""

    def __init__(self, ticket: Ticket, host: str | None = None) -> None:
        self.rank = ticket.rank
        self.size = ticket.size
        self.attempt = ticket.attempt
        self.run_id = ticket.run_id
        self.host = host or socket.gethostname()
        self.clock = ClockBounds()
        self.address = f"{ticket.rank}.{uuid.uuid4().hex}"
        self.wake = threading.Event()
        self._timeout = ticket.timeout
        self._heard = time.monotonic()
        self._state = "new"
        self._stop = False
        self._aborted: str | None = None
        self._round = 0
        self._waits = 0
        self._joined: dict[int, list[bytes]] = {}
        self._commands: list[Any] = []
        self._claimed = 0.0
        self._outbox: list[Message] = []
        self._changed = threading.Condition()

    # -- what a body sees

    def exchange(self, payload: bytes) -> list[bytes]:
        """Give `payload` (at most 1 MiB), get everybody's in rank order; also a barrier."""
        if len(payload) > LARGEST_PAYLOAD:
            raise ConfigurationError(f"exchange() takes at most {LARGEST_PAYLOAD} bytes, got {len(payload)}")
        number, self._round = self._round, self._round + 1
        self._post("exchange", bytes(payload), round=number)
        self._wait(lambda: number in self._joined)
        return self._joined.pop(number)

    def stopping(self) -> bool:
        """Say whether to finish early: the driver said so, another member failed, or the lease has run out."""
        return self._stop or self._aborted is not None or self._lease_over()

    def commands(self) -> list[Any]:
        """Return the driver's commands that have come since the last call."""
        with self._changed:
            found, self._commands = self._commands, []
            return found

    def report(self, event: Event) -> None:
        """Send a small record to the driver; its values must be JSON-able (NumPy's numbers and arrays are)."""
        if len(event.payload) > LARGEST_EVENT:
            raise ConfigurationError(f"an event carries at most {LARGEST_EVENT} bytes, got {len(event.payload)}")
        record = asdict(replace(event, payload=b"")) | {"values": dict(event.values)}
        del record["payload"]
        self._post("event", event.payload, event=plain(record))

    def met(self) -> None:
        """Say that this member has met the others."""
        self._post("met")

    def miss(self, rank: int, reason: str) -> None:
        """Say that another member cannot be reached."""
        self._post("missed", missed=rank, reason=reason)

    # -- what its engine does with it

    @property
    def stopped_by_others(self) -> bool:
        """True once another member has failed, or the driver is gone."""
        return self._aborted is not None or self._lease_over()

    @property
    def waiting(self) -> bool:
        """True while an answer of the driver is due, so that the pump hurries."""
        return self._waits > 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Train in this process alone, with other members of the gang: wait for another fit's to end."""
        with ExitStack() as stack:
            try:
                stack.enter_context(TRAINING.take(self.run_id, lambda: self.stopped_by_others, self._timeout))
            except TimeoutError as error:
                raise GangTimeout(f"member {self.rank} {error}; raise `timeout`") from None
            yield

    def claim(self) -> bool:
        """Ask the driver for this rank; False when it already belongs to an earlier run of the body."""
        self._claimed = time.time()
        self._post("hello", place=describe_place())
        deadline = time.monotonic() + self._timeout
        self._wait(lambda: self._state != "new", deadline)
        return self._state != "superseded"

    def leave(self, reason: str) -> None:
        """Have the body end in order, by the command ``{"leave": reason}``, and tell the driver of it."""
        with self._changed:
            self._commands.append({"leave": reason})
        self._post("leaving", reason=reason)

    def finish(self) -> None:
        """Tell the driver that the body has returned."""
        self._post("finished")

    def fail(self, failure: Failure) -> None:
        """Tell the driver that the body has failed."""
        record = {name: value for name, value in asdict(failure).items() if name not in ("part", "cause")}
        self._post("failed", failure=record)

    def receive(self, message: Message) -> None:
        """Take in one message of the driver."""
        header, payload = message
        with self._changed:
            self._heard = time.monotonic()
            kind = header["kind"]
            if kind in ("welcome", "superseded"):
                self._state = kind
                if kind == "welcome":  # the driver wrote it between this member's call and now
                    self.clock = ClockBounds(header["time"] - time.time(), header["time"] - self._claimed)
            elif kind == "exchange":
                self._joined[header["round"]] = split(payload, header["sizes"])
            elif kind == "command":
                self._commands.append(header["command"])
            elif kind == "stop":
                self._stop = True
            elif kind == "abort" and self._aborted is None:
                self._aborted = header["reason"]
            self._changed.notify_all()

    def outgoing(self, beat: bool) -> list[Message]:
        """Return, once, the messages to send, with a sign of life if there is nothing else to say."""
        with self._changed:
            found, self._outbox = self._outbox, []
        return found or ([self._message("beat", b"")] if beat else [])

    def _message(self, kind: str, payload: bytes, **fields: Any) -> Message:
        return {"kind": kind, "run": self.run_id, "attempt": self.attempt, "rank": self.rank, **fields}, payload

    def _post(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        with self._changed:
            self._outbox.append(self._message(kind, payload, **fields))
        self.wake.set()

    def _lease_over(self) -> bool:
        return time.monotonic() - self._heard > LEASE

    def _wait(self, done: Callable[[], bool], deadline: float = math.inf) -> None:
        """Wait as long as the driver lives: it knows who is missing, and which deadline that one has passed."""
        with self._changed:
            self._waits += 1
            try:
                while not done():
                    self._check_waiting(deadline)
                    self._changed.wait(0.1)
            finally:
                self._waits -= 1

    def _check_waiting(self, deadline: float) -> None:
        if self._aborted is not None:
            raise MemberStopped(f"member {self.rank} stopped: {self._aborted}")
        if self._lease_over() and self._state != "new":
            raise MemberStopped(f"member {self.rank} stopped: no word from the driver for {LEASE:g} s")
        if time.monotonic() > deadline:
            raise GangTimeout(
                f"the driver did not answer member {self.rank} within {self._timeout:g} s; does it run, and can "
                "this worker reach it? raise `timeout` if it is only slow"
            )


class MemberPump:
    """A thread that moves messages between a `LinkedMember` and its channel; a context manager."""

    def __init__(self, member: LinkedMember, make_channel: Callable[[], MemberChannel], idle: float = 0.05) -> None:
        self._member = member
        self._make = make_channel
        self._idle = idle
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"strombus-member-{member.rank}", daemon=True)

    def __enter__(self) -> LinkedMember:
        self._channel = self._make()
        self._thread.start()
        return self._member

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._member.wake.set()
        self._thread.join(LEASE)

    def _run(self) -> None:
        last_sent = 0.0
        try:
            while True:
                self._member.wake.wait(0.02 if self._member.waiting else self._idle)
                self._member.wake.clear()
                ending = self._ended.is_set()
                messages = self._member.outgoing(time.monotonic() - last_sent >= BEAT)
                if messages:
                    self._channel.send(messages)
                    last_sent = time.monotonic()
                if ending:
                    return
                for message in self._channel.receive():
                    self._member.receive(message)
        except Exception:
            logger.exception("member %d lost its connection to the driver; it stops", self._member.rank)
        finally:
            self._channel.close()


def load_body(blob: bytes) -> Callable[..., Any]:
    """Load what a member runs, with all that it imports; what goes wrong is raised when it is called.

    To be called before the member's pump starts: an import of torch may hold the interpreter's lock for seconds, in
    which a member gives no sign of life.
    """
    try:
        body: Callable[..., Any] = load(blob)
    except Exception as error:
        return partial(_fail, error)
    return body


def _fail(error: Exception, *_: Any) -> NoReturn:
    raise error


def run_member(
    member: LinkedMember,
    body: Callable[[Member, Any, Any], Any],
    shared: Callable[[], Any],
    payload: Any,
    threads: int | None = None,
) -> Any:
    """Run a gang's body under its pump: its result, a `Failure`, or `Superseded`; never raises."""
    try:
        with member.turn():
            if not member.claim():
                return Superseded(member.rank)
            keep_freed_memory()
            with torch_guard(threads):
                result = body(member, shared(), payload)
    except (Exception, SystemExit) as error:
        failure = Failure.of(error, member.rank, member.stopped_by_others)
        member.fail(failure)
        return failure
    member.finish()
    return result


def split(joined: bytes, sizes: list[int]) -> list[bytes]:
    """Cut `joined` into pieces of the given sizes."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(joined[start : start + size])
        start += size
    return pieces


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """Return `record` with plain JSON values only."""
    try:
        found: dict[str, Any] = json.loads(json.dumps(record, default=_plain_value))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"events and commands must be of numbers, texts, lists and mappings: {error}"
        ) from error
    return found


def _plain_value(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is none of them")
