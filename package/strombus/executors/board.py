"""The driver's end of a gang, engine-free: who is there, what they say, what they are told."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from strombus.errors import GangError, GangTimeout, MemberLost, PeerLost
from strombus.executors.base import Control
from strombus.executors.calls import Failure
from strombus.executors.members import GRACE, LEASE, LEAVE, Message, Superseded, Ticket, plain
from strombus.types import Event

__all__ = ["Board", "new_run_id"]

logger = logging.getLogger(__name__)


_NOTHING = (Failure, Superseded, MemberLost)
"""What stands in the place of a result."""


class Board:
    """The driver's record of one running gang: who is there, what they say, what they are told.

    The pump's thread calls `receive` and `outgoing`; the thread that wants the gang calls `supervise`.

    Parameters
    ----------
    timeout : float
        Seconds to wait for all members to come, in each exchange for members that tell nothing meanwhile, and at the
        end for the results.
    survive : bool
        Whether, once all have met, the others go on when a member is lost.

    Attributes
    ----------
    silent : set of int
        Those that were given up since they said nothing: their processes may still be there.
    """

    def __init__(self, size: int, run_id: str, attempt: int, timeout: float, survive: bool = False) -> None:
        self.size = size
        self.run_id = run_id
        self.attempt = attempt
        self.timeout = timeout
        self.places: dict[int, str] = {}
        self.silent: set[int] = set()
        self._survive = survive
        self._met: set[int] = set()
        self._borne: set[int] = set()  # of those lost, without whom the others go on
        self._aborted = False
        self._started = time.monotonic()
        self._addresses: dict[int, str] = {}
        self._seen: dict[int, float] = {}
        self._rounds: dict[int, dict[int, bytes]] = {}
        self._round_started: dict[int, float] = {}
        self._events: deque[tuple[int, Event]] = deque()
        self._failures: dict[int, Failure] = {}
        self._lost: dict[int, str] = {}
        self._finished: set[int] = set()
        self._leaving: dict[int, float] = {}
        self._told: list[Message] = []
        self._outbox: defaultdict[str, list[Message]] = defaultdict(list)
        self._changed = threading.Condition()

    def ticket(self, rank: int) -> Ticket:
        """Return what member `rank` needs to know."""
        return Ticket(rank, self.size, self.run_id, self.attempt, self.timeout)

    @property
    def broken(self) -> bool:
        """True once a member has failed, or was lost and the others do not go on without it."""
        return bool(self._failures) or bool(self._lost.keys() - self._borne)

    @property
    def _goes_on(self) -> bool:
        return self._survive and len(self._met) == self.size and not self._aborted

    def to_come(self) -> set[int]:
        """Return the members that have not claimed their ranks."""
        return set(range(self.size)) - self._addresses.keys()

    def is_lost(self, rank: int) -> bool:
        """Say whether a member was lost."""
        return rank in self._lost

    @property
    def waiting(self) -> bool:
        """True while members have yet to come, or wait for one another."""
        return len(self._addresses) < self.size or bool(self._rounds)

    def receive(self, address: str, message: Message) -> None:
        """Take in one message; those of another run, attempt or rank are dropped."""
        header, payload = message
        rank = header.get("rank")
        mine = (header.get("run"), header.get("attempt")) == (self.run_id, self.attempt)
        if not mine or not isinstance(rank, int) or not 0 <= rank < self.size:
            logger.warning("dropped a message of another gang: %s", header)
            return
        with self._changed:
            if header["kind"] == "hello":
                self._claim(rank, address, header)
            if self._addresses.get(rank) == address:
                self._seen[rank] = time.monotonic()
                self._take(rank, header, payload)
            self._changed.notify_all()

    def _claim(self, rank: int, address: str, header: dict[str, Any]) -> None:
        """Give the rank to whom asks first; a second claim means that the engine ran the body again."""
        if self._addresses.setdefault(rank, address) == address:
            self.places[rank] = header["place"]
            self._outbox[address] += [({"kind": "welcome", "time": time.time()}, b""), *self._told]
        else:
            self._outbox[address].append(({"kind": "superseded"}, b""))
            self._lose(rank, f"its engine started it again on {header['place']}")

    def _take(self, rank: int, header: dict[str, Any], payload: bytes) -> None:
        kind = header["kind"]
        if kind == "exchange":
            self._gather(rank, header["round"], payload)
        elif kind == "event":
            self._events.append((rank, replace(Event(**header["event"]), rank=rank, payload=payload)))
            for number, there in self._rounds.items():
                if rank not in there:  # at work on something else, such as compiling
                    self._round_started[number] = time.monotonic()
        elif kind == "met":
            self._met.add(rank)
        elif kind == "missed" and rank not in self._lost and header["missed"] in self._addresses:
            self.silent.add(header["missed"])
            self._lose(header["missed"], str(header["reason"]))
        elif kind == "failed" and rank not in self._borne:
            self._failures.setdefault(rank, Failure(**header["failure"], part=rank))
            self._abort(f"member {rank} failed: {header['failure']['name']}: {header['failure']['text']}")
        elif kind == "leaving":
            self._leaving.setdefault(rank, time.monotonic() + LEAVE)
            self._events.append((rank, Event("leaving", rank, time.time(), values={"reason": header["reason"]})))
        elif kind == "finished":
            self._finished.add(rank)

    def _gather(self, rank: int, number: int, payload: bytes) -> None:
        collected = self._rounds.setdefault(number, {})
        self._round_started.setdefault(number, time.monotonic())
        collected[rank] = payload
        if len(collected) == self.size:
            del self._rounds[number], self._round_started[number]
            ordered = [collected[one] for one in range(self.size)]
            header = {"kind": "exchange", "round": number, "sizes": [len(one) for one in ordered]}
            self._tell((header, b"".join(ordered)))

    def _tell(self, message: Message) -> None:
        for rank, address in self._addresses.items():
            if rank not in self._borne:
                self._outbox[address].append(message)

    def _tell_all(self, message: Message) -> None:
        """Tell those who are here now, and those who have yet to come."""
        self._told.append(message)
        self._tell(message)

    def _abort(self, reason: str) -> None:
        self._aborted = True
        self._tell_all(({"kind": "abort", "reason": reason}, b""))

    def _lose(self, rank: int, reason: str) -> None:
        if rank in self._lost or rank in self._failures:
            return
        self._lost[rank] = reason
        if self._goes_on:
            self._borne.add(rank)
            self._outbox[self._addresses[rank]].append(({"kind": "abort", "reason": f"it was given up: {reason}"}, b""))
            self._tell_all(({"kind": "command", "command": {"lost": rank}}, b""))
        else:
            self._abort(f"member {rank} was lost: {reason}")

    def lose(self, rank: int, reason: str) -> None:
        """Record that the engine lost a member; one that has finished only counts as lost before its result is in.

        One that is leaving may still be at work when its engine has given it up already.
        """
        with self._changed:
            ended = self._finished | self._failures.keys() | self._lost.keys()
            if time.monotonic() > self._leaving.get(rank, 0.0) or len(ended) == self.size:
                self._lose(rank, reason)
            self._changed.notify_all()

    def outgoing(self, beat: bool) -> dict[str, list[Message]]:
        """Return, once, the messages to send, by address; with a sign of life for everybody if `beat`."""
        with self._changed:
            found = {address: messages for address, messages in self._outbox.items() if messages}
            self._outbox.clear()
            if beat:
                for address in self._addresses.values():
                    found.setdefault(address, []).append(({"kind": "beat"}, b""))
            return found

    def supervise(
        self,
        poll: Callable[[], object],
        on_event: Callable[[int, Event], None] | None = None,
        control: Control | None = None,
    ) -> None:
        """Wait until every member has finished; hand on events, stops and commands meanwhile.

        Parameters
        ----------
        poll : callable
            Called several times a second; tells `lose` whom the engine has lost, or raises.

        Raises
        ------
        GangError
            A member failed or was lost; the one that failed by itself, once the others have stopped.
        GangTimeout
            Members did not come, or did not meet in an exchange.
        """
        stopping, failed_at = False, 0.0
        try:
            while True:
                self._hand_on_events(on_event)
                poll()
                if control is not None:
                    stopping = self._obey(control, stopping)
                self._check_deadlines()
                with self._changed:
                    ended = self._finished | self._failures.keys() | self._lost.keys()
                    if not self.broken and len(ended) == self.size:
                        if self._finished - self._lost.keys():
                            break
                        raise self.error()
                    if self.broken:
                        failed_at = failed_at or time.monotonic()
                        if len(ended) == self.size or time.monotonic() - failed_at > self._grace(ended):
                            raise self.error()
                    self._changed.wait(0.1)
        except BaseException as error:
            with self._changed:
                self._abort(f"the driver ended the gang: {type(error).__name__}: {error}")
            raise
        finally:
            self._hand_on_events(on_event)

    def _grace(self, ended: set[int]) -> float:
        """Return how long to wait, once a member has failed, for others to stop and perhaps tell a better reason."""
        missed = {failure.missed for failure in self._failures.values()} - ended - {None}
        # Nobody knows better than the engine; and who is missed by others may never speak again.
        return GRACE if self._lost or len(ended) + len(missed) == self.size else LEASE + GRACE

    def _hand_on_events(self, on_event: Callable[[int, Event], None] | None) -> None:
        while self._events:
            rank, event = self._events.popleft()
            if on_event is not None:
                on_event(rank, event)

    def _obey(self, control: Control, stopping: bool) -> bool:
        commands = control.commands()
        with self._changed:
            for command in commands:
                self._tell_all((plain({"kind": "command", "command": command}), b""))
            if not stopping and control.stopping():
                self._tell_all(({"kind": "stop"}, b""))
                stopping = True
        return stopping

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        with self._changed:
            missing = [rank for rank in range(self.size) if rank not in self._addresses and rank not in self._lost]
            if missing and now - self._started > self.timeout and not self._failures and not self._lost:
                raise GangTimeout(
                    f"{len(missing)} of {self.size} members did not start within {self.timeout:g} s (ranks {missing}): "
                    "are the workers busy with other tasks? free them, or raise `timeout`"
                )
            for number, started in self._round_started.items():
                absent = sorted(set(range(self.size)) - self._rounds[number].keys() - self._failures.keys())
                if now - started > self.timeout and not self._failures and not self._lost:
                    overdue = f"waited {self.timeout:g} s for members {absent} in exchange {number}; raise `timeout` if"
                    if not self._survive:
                        raise GangTimeout(f"{overdue} they only need longer")
                    self.silent.update(absent)
                    for rank in absent:
                        self._lose(rank, f"{overdue} it only needs longer")
            for rank, seen in self._seen.items():
                ended = rank in self._finished or rank in self._failures or rank in self._lost
                if not ended and now - seen > LEASE:
                    self.silent.add(rank)
                    self._lose(rank, f"no sign of life from {self.places[rank]} for {LEASE:g} s")

    def overdue(self, rank: int) -> MemberLost:
        """Give up a member that has finished, and whose result does not come; see `give_up`."""
        reason = f"it has finished, but its result did not come within {self.timeout:g} s (option `timeout`)"
        return self.give_up(rank, reason)

    def give_up(self, rank: int, reason: str = "") -> MemberLost:
        """Return what stands for a lost member among the results; raise it where the others do not go on without it."""
        with self._changed:
            self._lose(rank, reason)
        if self.broken:
            raise self.error()
        return self._loss(rank)

    def some(self, results: list[Any]) -> list[Any]:
        """Return the results; raise the error where there are none but of lost members."""
        if all(isinstance(result, MemberLost) for result in results):
            raise self.error()
        return results

    def _loss(self, rank: int) -> MemberLost:
        where = self.places.get(rank, "its worker")
        return MemberLost(f"member {rank} on {where} was lost: {self._lost[rank]}", rank)

    def accept(self, rank: int, result: Any) -> Any:
        """Return what a member returned; raise GangError where that is no result."""
        if isinstance(result, Failure):
            raise self.error({rank: result})
        if isinstance(result, Superseded):
            self.lose(rank, "its engine started it again")
            raise self.error()
        return result

    def error(self, failures: Mapping[int, Failure] | None = None) -> GangError:
        """Return the error to raise: a lost member before a failed one, one that failed by itself before the rest.

        `failures` may hold richer records of the same failures, with the exceptions that could travel.
        """
        lost = [rank for rank in self._lost if rank not in self._borne]
        if lost or (self._lost and not (self._failures or failures)):
            return self._loss(next(iter(lost or self._lost)))
        # Who misses a peer tells of it, but the peer's own failure, told a moment later, is the cause.
        known = self._failures or failures or {}
        ordered = sorted(known.values(), key=lambda one: (one.stopped, one.name == PeerLost.__name__))
        failure = ordered[0]
        richer = (failures or {}).get(failure.part or 0, failure)
        # Where nobody knows more than that a peer says nothing, it hangs.
        kind = MemberLost if failure.name == PeerLost.__name__ else GangError
        error = richer.to_error(kind, "member")
        assert isinstance(error, GangError)
        return error

    def last_error(self, returned: Mapping[int, Any]) -> GangError:
        """Return the error to raise, with what members returned: how they failed, or their results."""
        error = self.error({rank: one for rank, one in returned.items() if isinstance(one, Failure)})
        error.results = {rank: one for rank, one in returned.items() if not isinstance(one, _NOTHING)}
        return error

    def with_cause(self, error: GangError, results: Iterable[Any]) -> GangError:
        """Return `error` with the exception that caused it, where that has come in with the members' results."""
        failures = {one.part: one for one in results if isinstance(one, Failure) and one.part is not None}
        return self.error(failures) if failures else error


def new_run_id() -> str:
    """Return a name for one gang, unlike any other."""
    return f"{os.getpid():x}-{uuid.uuid4().hex[:12]}"
