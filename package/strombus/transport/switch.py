"""What a member does with frames: deliver, pass on, acknowledge, ask again; and how it notices who is lost.

It never waits; `strombus.transport.linked.LinkedTransport` does, and decides which thread calls.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from strombus.errors import ConfigurationError, PeerLost, WireError
from strombus.transport.base import Message, Seat, TransportFigures, TransportOptions
from strombus.transport.frames import ALL, HEADER_SIZE, Frame, Lane, pack, parse
from strombus.transport.links import Link
from strombus.transport.topology import Shape
from strombus.transport.wire import Arrival, Change, Wire

__all__ = ["CONTROL", "SLICE", "Switch"]

_HELLO, _WELCOME, _ACK, _RESEND, _BYE = 250, 251, 252, 253, 254
CONTROL = range(_HELLO, 256)
"""Kinds of frames that are the transport's own."""
SLICE = 0.02
"""Seconds of one wait, between two looks at who is gone."""
_WORDS = 1000
"""Bytes of a goodbye's reason."""
_DAMAGED = 8
"""Damaged frames in a row that are asked for again before it is an error."""


class Switch:
    """A member's links and its inbox.

    Parameters
    ----------
    seat : Seat
    options : TransportOptions
    wire : Wire
    figures : TransportFigures
        Counts here what goes over the wire.
    """

    def __init__(self, seat: Seat, options: TransportOptions, wire: Wire, figures: TransportFigures) -> None:
        self._options, self._wire, self.figures = options, wire, figures
        self._rank, self._size = seat.rank, seat.size
        self._lane = Lane.of(seat.run_id, seat.attempt)
        self.shape = Shape.of(options.topology, seat.size, seat.hub)
        self.links = {
            rank: Link(rank, self.shape.dials(seat.rank, rank), options.queue, options.window)
            for rank in self.shape.neighbours(seat.rank)
        }
        self.relays = not self.shape.is_mesh and len(self.links) > 1
        self.inbox: deque[Message] = deque()
        self.failure: Exception | None = None
        self.bounded = False  # whether the inbox is, since nobody may be about to empty it
        self.absorbs = False  # for now it is not, whatever `bounded` says
        self.deaf = False  # the member takes nothing any more
        self.left = False
        self.lost: dict[int, str] = {}  # where the member goes on without them
        self._tolerates = False
        self._heard: dict[int, int] = {}
        self._looked = 0.0

    def post(self, link: Link, frame: Frame) -> None:
        """Add a frame to a link's window."""
        link.add(pack(self._lane, frame, link.sent, link.done))

    def turn(self, arrivals: Iterable[Arrival]) -> None:
        """Take in what has come, hand over what can go, and look who is gone."""
        for rank, what in arrivals:
            if rank in self.lost:
                continue
            if isinstance(what, Change):
                self._note(rank, what)
            else:
                self._take(rank, what)
        for link in self.links.values() if self.relays else ():
            while link.held and self._deliver(link, link.held[0]):
                self._finish(link, link.held.popleft())
        for link in self.links.values():
            if link.cursor < link.sent:
                self.flush(link)
            if link.up and link.owes:
                self._tell(link, _ACK)
        now = time.monotonic()
        if now >= self._looked + SLICE:
            self._looked = now
            for link in self.links.values():
                self._look_after(link, now)

    def flush(self, link: Link) -> None:
        """Hand over what waits, if the connection stands."""
        while link.up and (frame := link.next_frame()) is not None:
            if not self._hand_over(link, frame):
                return
            link.cursor += 1

    def _hand_over(self, link: Link, frame: bytes) -> bool:
        if not self._wire.hand_over(link.rank, frame):
            self._note_loss(link)
            return False
        self.figures.bytes_sent += len(frame)
        return True

    def _tell(self, link: Link, kind: int, step: int = 0) -> bool:
        """Send a control frame, if there is a connection: without a number, it says how far this side is both ways."""
        frame = Frame(kind, self._rank, step, b"")
        told = self._hand_over(link, pack(self._lane, frame, link.cursor, link.done))
        if told:
            link.note_told()
        return told

    def _take(self, rank: int | None, data: bytes | memoryview) -> None:
        self.figures.bytes_received += len(data)
        link = self.links.get(-1 if rank is None else rank)
        if link is None:
            raise WireError(f"a frame came from member {rank}, who is no neighbour of {self.name(self._rank)}")
        try:
            frame = parse(data, self._lane)
        except WireError:
            link.damaged += 1
            if link.damaged > _DAMAGED:
                raise
            self._tell(link, _RESEND, link.taken)
            return
        if frame is None:
            return
        link.acknowledge(frame.taken)
        if frame.kind in CONTROL and frame.kind != _BYE:
            self._obey(link, frame)
        else:
            for due in link.in_order(frame):
                if link.held or not self._deliver(link, due):
                    link.held.append(due)
                else:
                    self._finish(link, due)

    def _finish(self, link: Link, frame: Frame) -> None:
        link.finish(frame)
        if frame.kind == _BYE:
            self._tell(link, _ACK)  # the neighbour waits for that

    def _obey(self, link: Link, frame: Frame) -> None:
        if frame.kind == _ACK:
            link.gap |= frame.number > link.taken
            if frame.step:
                self._tell(link, _ACK)
            return
        link.rewind(frame.step)
        if frame.kind in (_HELLO, _WELCOME):
            link.met = link.up = True
            link.lost_since = None
            if frame.kind == _HELLO:
                self._tell(link, _WELCOME, link.taken)

    def _deliver(self, link: Link, frame: Frame) -> bool:
        """Keep a frame or pass it on, or both; False when there is no room for it somewhere."""
        if frame.kind == _BYE:
            self._take_leave_of(link, frame.step, bytes(frame.payload[:_WORDS]).decode(errors="replace"))
            return True
        if frame.sequence < self._heard.get(frame.origin, 0):
            return True
        onward = self._onward(link, frame)
        mine = frame.to in (ALL, self._rank)
        full = self.bounded and len(self.inbox) >= self._options.queue and not self.absorbs
        crowded = [one for one in onward if not one.has_room(HEADER_SIZE + len(frame.payload))]
        for one in crowded:
            one.refused_since = one.refused_since or time.monotonic()
        if (mine and full) or crowded:
            return False
        for one in onward:
            self.post(one, frame)
        self._heard[frame.origin] = frame.sequence + 1
        if mine and not self.deaf:
            self.figures.messages_received += 1
            self.inbox.append(Message(frame.kind, frame.origin, frame.step, memoryview(frame.payload)))
        return True

    def _onward(self, link: Link, frame: Frame) -> list[Link]:
        """Return the links that a frame goes on to; WireError where it cannot have come this way."""
        origin, to = frame.origin, frame.to
        rightly = origin < self._size and origin != self._rank and (to == ALL or to < self._size)
        if not rightly or self.shape.next_hop(self._rank, origin) != link.rank:
            raise WireError(f"a frame from {self.name(link.rank)} claims to go from member {origin} to {to}")
        if self.shape.is_mesh or to == self._rank:
            return []
        ways = self.links.values() if to == ALL else (self.links[self.shape.next_hop(self._rank, to)],)
        return [one for one in ways if one is not link and not one.gone]

    # -- losses and goodbyes

    def _note(self, rank: int | None, change: Change) -> None:
        link = self.links.get(-1 if rank is None else rank)
        if link is not None and change is Change.LOST:
            self._note_loss(link)
        elif link is not None:
            link.lost_since = None
            link.asking.reset()
            self._tell(link, _HELLO, link.taken)
        elif change is Change.LOST:  # which of those that dialled it was, a frame to each tells
            for one in self.links.values():
                if not one.dialled and one.met and not one.gone:
                    one.suspect_until = time.monotonic() + self._options.dead_after
                    self._tell(one, _ACK)

    def _note_loss(self, link: Link) -> None:
        link.up = False
        if link.met and not link.gone and link.lost_since is None:
            link.lost_since = time.monotonic()

    def _look_after(self, link: Link, now: float) -> None:
        """Ask what should have come, and find out who is lost."""
        if link.gone:
            return
        if link.refused_since is not None and now - link.refused_since > self._options.send_timeout:
            self.lose(self.tell_crowded(link), link.rank)
        elif link.lost_since is not None:
            if not link.dialled and self._tell(link, _ACK):
                link.lost_since = None  # it has dialled again; its hello waits for the step that it computes
            elif now - link.lost_since > self._options.dead_after:
                self.lose(
                    f"{self.name(link.rank)} was lost: its connection to {self.name(self._rank)} closed, and was not "
                    f"made again within {self._options.dead_after:g} s (option `dead_after`)",
                    link.rank,
                )
        elif not link.up:
            if link.dialled and link.asking.due(now):
                self._tell(link, _HELLO, link.taken)
            elif now < link.suspect_until:
                self._tell(link, _ACK)
        elif link.gap:
            self._look_for_missing(link, now)
        elif link.window and link.prodding.due(now):
            self._tell(link, _ACK, 1)
        elif now < link.suspect_until:
            self._tell(link, _ACK)

    def _look_for_missing(self, link: Link, now: float) -> None:
        """Ask for what is missing, and do not wait for it for ever."""
        link.gap_since = now if link.gap_since is None else link.gap_since
        if now - link.gap_since > self._options.send_timeout:
            self.lose(
                f"frame {link.taken} of {self.name(link.rank)} was lost, and did not come again within "
                f"{self._options.send_timeout:g} s (option `send_timeout`); its sender keeps what was not "
                "acknowledged, as much as options `queue` and `window` say",
                link.rank,
            )
        elif link.asking.due(now):
            self._tell(link, _RESEND, link.taken)

    def tell_crowded(self, link: Link) -> str:
        """Say that a neighbour takes nothing."""
        return (
            f"{self.name(link.rank)} took no message for {self._options.send_timeout:g} s (option `send_timeout`): "
            f"{len(link.window)} wait for it (options `queue` and `window`)"
        )

    def _take_leave_of(self, link: Link, blamed: int, reason: str) -> None:
        """Note a neighbour's goodbye; above 0 it is one for the rank below that, who was lost."""
        link.gone = True
        if blamed == link.rank + 1:
            self.lose(f"{self.name(link.rank)} left while others reached each other through it only", link.rank)
        elif blamed:
            self.lose(f"{self.name(link.rank)} left since it had lost member {blamed - 1}: {reason}", blamed - 1)

    def leave(self) -> None:
        """Add a goodbye to the links of who is there; it says why, when this is not the end of the work."""
        if self.left:
            return
        self.left = True
        blamed, reason = 0, b""
        if isinstance(self.failure, PeerLost) and self.failure.rank is not None:
            blamed, reason = self.failure.rank + 1, str(self.failure).encode()[:_WORDS]
        elif self.relays and len(self.open_links()) > 1:
            blamed = self._rank + 1
        for link in self.open_links():
            self.post(link, Frame(_BYE, self._rank, blamed, reason))

    def raise_failure(self) -> None:
        """Raise what ended this member's part, if anything did."""
        if self.failure is not None:
            raise self.failure

    def lose(self, text: str, rank: int) -> PeerLost:
        """Note a loss, once; return the error that tells it, with a rank where that is a member's."""
        lost = PeerLost(text, rank if rank < self._size else None)
        if self._tolerates:
            self.forget(rank, text)
        else:
            self.failure = self.failure or lost
        return lost

    def tolerate(self) -> None:
        """Take no loss for a failure any more; ConfigurationError where others are reached through a neighbour."""
        if not self.shape.is_mesh:
            raise ConfigurationError("members go on without a lost one only in a mesh: take topology='mesh'")
        self._tolerates = True

    def forget(self, rank: int, text: str = "its gang has given it up") -> None:
        """Have nothing to do with a neighbour any more."""
        self.lost.setdefault(rank, text)
        self.links[rank].drop()
        self.inbox = deque(message for message in self.inbox if message.origin != rank)

    def name(self, rank: int) -> str:
        """Return what an error calls a member, or the hub that is none."""
        return f"member {rank}" if rank < self._size else "the hub"

    def open_links(self) -> list[Link]:
        """Return the links to who is there."""
        return [link for link in self.links.values() if link.met and not link.gone]
