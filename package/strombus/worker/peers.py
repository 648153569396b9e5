"""What a gang's members say to one another, and how one waits for the others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum

from strombus.errors import ExecutorError, PeerLost, WireError
from strombus.executors.base import Member
from strombus.transport.base import Message, Transport
from strombus.types import Event

__all__ = ["Kind", "Limit", "Peers", "Regroup"]

Limit = Callable[[int], tuple[float, str]]

_PIECE = 2**22
"""Bytes of a message that is sent in pieces."""
_SLICE = 0.02
"""Seconds of one wait for the transport; between two, the driver's stop is looked at."""
_SIGN = 1.0
"""Seconds between two signs of life, at least; a quarter of the patience where that is less."""
_SLACK = 3
"""Times the longest that this member was busy without a word that another one may be."""


class Kind(IntEnum):
    """What a message between members is."""

    UPDATE = 1
    END = 2  # of an epoch: no update of it follows
    GATHER = 3
    PARAMETERS = 4
    REQUEST = 5
    STATE = 6
    PROBE = 7  # how fast a link is
    CUT = 8  # after how many steps of a stretch the members meet, sooner than they would have
    LEAVE = 9  # the gang, to go on in another: nothing follows
    ALIVE = 10  # at work on what takes long: nothing to take


class Regroup(Exception):
    """The members leave their gang as they are, since one was lost or others may join; never an error."""


class Peers:
    """The other members of a gang, as one of them sees them.

    Messages of one origin are kept in the order in which it sent them; who reads takes the first of an
    origin, or leaves it for later.

    Parameters
    ----------
    member : Member
    patience : float
        Seconds to wait for another member that says nothing, at least: three times as long as this one was busy itself
        where that is more, with a step, the data's opening, a checkpoint or validation.

    Attributes
    ----------
    transport : Transport or None
        Set once the members have met; None for a gang of one.
    hear : callable
        Called in every wait, to take in what the driver says.
    lost : set of int
        Those without whom the others go on.
    """

    def __init__(self, member: Member, patience: float) -> None:
        self.member, self.patience = member, patience
        self.transport: Transport | None = None
        self.rank, self.size = member.rank, member.size
        self.others = [rank for rank in range(member.size) if rank != member.rank]
        self._inbox: dict[int, deque[Message]] = {rank: deque() for rank in self.others}
        self._heard: dict[int, float] = {}
        self._looked: float | None = None  # when it last took in what had come
        self._busiest = self._signed = 0.0
        self._gathers = 0
        self.hear: Callable[[], None] = lambda: None
        self.lost: set[int] = set()
        self._survives = False
        self._missed: dict[int, float] = {}

    # -- without those that are lost

    def survive(self) -> None:
        """Go on without members that are lost, once all have met: the driver says who is, the same to all."""
        if self.transport is not None:
            self.transport.tolerate()
            self.transport.stopping = self._stopping
        self._survives = True
        self.member.met()
        self.member.exchange(b"")  # so that the driver knows it of all before anybody takes a step

    def _stopping(self) -> bool:
        self.hear()
        return self.member.stopping()

    def lose(self, rank: int) -> None:
        """Take the driver's word that a member is lost; what has come of it by now stays to be taken."""
        self._take_in(0.0)
        self.lost.add(rank)
        if self.transport is not None:
            self.transport.forget(rank)

    def _miss(self, rank: int, text: str) -> None:
        """Have the driver decide about a member that cannot be reached, or says nothing."""
        now = time.monotonic()
        if rank not in self._missed:
            self._missed[rank] = now
            self.member.miss(rank, text)
        elif now - self._missed[rank] > self.patience and rank not in self.lost:
            raise PeerLost(f"{text}; the driver has not said whether to go on without it", rank)

    # -- deadlines

    def sign(self) -> None:
        """Let the others, and the driver, know now and then that this member is at work on what takes long."""
        now = time.monotonic()
        if now - self._signed >= min(_SIGN, self.patience / 4):
            self._signed = now
            self.send(Kind.ALIVE, 0)
            self.member.report(Event("alive", self.rank, time.time()))

    def _limit(self, rank: int, chosen: Limit | None) -> tuple[float, str]:
        """Return the seconds that a member may say nothing, and the option that changes them."""
        seconds, option = (self.patience, "timeout") if chosen is None else chosen(rank)
        return (max(seconds, _SLACK * self._busiest) if option == "timeout" else seconds), option

    # -- messages

    def send(self, kind: Kind, step: int, payload: bytes = b"", *, to: int | None = None) -> None:
        """Send to all others, or to one."""
        if self.transport is not None:
            self.transport.send(kind, step, payload, to=to)

    def send_whole(self, kind: Kind, payload: bytes, *, to: int | None = None) -> None:
        """Send what may be large, to all others or to one, in pieces: each that has come shows that it goes on."""
        starts = range(0, max(1, len(payload)), _PIECE)
        for left, start in zip(reversed(range(len(starts))), starts, strict=True):
            self.send(kind, left, payload[start : start + _PIECE], to=to)

    def take_whole(self, rank: int, kind: Kind, what: str) -> bytes:
        """Wait for all pieces of what a member sends with `send_whole`, and join them."""
        pieces: list[Message] = []
        while not pieces or pieces[-1].step:
            self.wait_for_word(what, [rank])
            self.sign()
            piece = self.take(rank, kind)
            if pieces and piece.step != pieces[-1].step - 1:
                raise WireError(f"member {rank} sent piece {piece.step} after {pieces[-1].step} of {what}")
            pieces.append(piece)
        return b"".join(piece.payload for piece in pieces)

    def poll(self, timeout: float = 0.0) -> None:
        """Take in what has come, waiting at most `timeout` seconds for something to come."""
        if self._looked is not None:
            self._busiest = max(self._busiest, time.monotonic() - self._looked)
        self._take_in(timeout)
        self._looked = time.monotonic()
        for rank, text in [] if self.transport is None else list(self.transport.lost.items()):
            if rank not in self.lost:
                self._miss(rank, text)

    def _take_in(self, timeout: float) -> None:
        for message in [] if self.transport is None else self.transport.receive(timeout):
            if message.origin not in self._inbox:
                raise WireError(f"a message claims to come from member {message.origin} of {self.size}")
            if message.origin not in self.lost:
                if message.kind != Kind.ALIVE:
                    self._inbox[message.origin].append(message)
                self._heard[message.origin] = time.monotonic()

    def head(self, rank: int) -> Message | None:
        """Return the first message of a member that was not taken yet."""
        mail = self._inbox[rank]
        return mail[0] if mail else None

    def take(self, rank: int, *kinds: Kind) -> Message:
        """Take a member's first message, which must be of one of `kinds`; Regroup when the member has left."""
        message = self._inbox[rank].popleft()
        if message.kind == Kind.LEAVE:
            raise Regroup
        if message.kind not in kinds:
            wanted = " or ".join(kind.name for kind in kinds)
            raise WireError(f"member {rank} sent a message of kind {message.kind}, wanted {wanted}")
        return message

    def go_on(self, doing: str) -> None:
        """Raise ExecutorError when the driver asks to stop, or is gone."""
        if self._stopping():
            raise ExecutorError(f"member {self.rank} was asked to stop while {doing}")

    def wait(
        self, missing: Callable[[], Iterable[int]], what: str, limit: Limit | None = None, alone: bool = False
    ) -> None:
        """Take in messages until `missing` names nobody.

        Parameters
        ----------
        limit : callable, optional
            Gives, for a member, the seconds that it may say nothing, and the option that changes them; by default
            `patience`, which is what "timeout" stands for.
        alone : bool
            Whether `missing` leaves out who is lost; else the wait ends when somebody is.

        Raises
        ------
        Regroup
            When the others go on without a lost member, and cannot do so here.
        PeerLost
            When a member can no longer be reached, or says nothing for too long.
        ExecutorError
            When the driver asks to stop.
        """
        started = time.monotonic()
        self.poll()
        while absent := list(missing()):
            self.go_on(f"it waited for {what}")
            if self.lost and not alone:
                raise Regroup
            for rank in absent:
                seconds, option = self._limit(rank, limit)
                if time.monotonic() - max(started, self._heard.get(rank, 0.0)) > seconds:
                    self._give_up(
                        rank,
                        f"member {self.rank} waited {seconds:.3g} s for {what} of member {rank}, which said nothing "
                        f"meanwhile: does it hang? raise `{option}` if it only needs longer",
                    )
            self.poll(_SLICE)

    def _give_up(self, rank: int, text: str) -> None:
        if not self._survives:
            raise PeerLost(text, rank)
        self._miss(rank, text)

    def wait_for_driver(self, told: Callable[[], bool]) -> None:
        """Wait until the driver has spoken, however long that takes: the member's lease says whether it lives."""
        while not told():
            self.go_on("it waited for the driver's word")
            if self.transport is None:
                time.sleep(_SLICE)
            self.poll(_SLICE)

    def wait_for_word(self, what: str, ranks: Iterable[int] | None = None, limit: Limit | None = None) -> None:
        """Wait until each of `ranks` (all others by default) has a message to take; see `wait`."""
        awaited = self.others if ranks is None else list(ranks)
        self.wait(lambda: [rank for rank in awaited if not self._inbox[rank]], what, limit)

    def gather(self, payload: bytes, what: str) -> list[bytes]:
        """Give `payload`, get everybody's in rank order."""
        number, self._gathers = self._gathers, self._gathers + 1
        self.send(Kind.GATHER, number, payload)
        self.wait_for_word(what)
        found = {rank: self.take(rank, Kind.GATHER) for rank in self.others}
        if any(message.step != number for message in found.values()):
            raise WireError(f"members are not in the same gathering: {number} here")
        return [payload if rank == self.rank else bytes(found[rank].payload) for rank in range(self.size)]
