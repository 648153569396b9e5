"""Each message once and in order, over wires that break: numbers, windows, resending, and passing on in trees.

In a mesh the member's own thread does all the work, inside its calls. A member with several neighbours in a tree passes
on what the others say to one another, and must do so while it computes: it has a thread for that, which is then the
only one to touch the wire.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import ClassVar

from strombus.errors import ConfigurationError, PeerLost, WireError
from strombus.transport.base import Message, Payload, Seat, Transport, TransportOptions
from strombus.transport.frames import ALL, HEADER_SIZE, Frame, Lane, pack, parse
from strombus.transport.links import Link
from strombus.transport.topology import arity_of, neighbours, next_hop
from strombus.transport.wire import Arrival, Change, Wire

__all__ = ["LinkedTransport"]

_HELLO, _WELCOME, _ACK, _RESEND, _BYE = 250, 251, 252, 253, 254
_CONTROL = range(_HELLO, 256)
_SLICE = 0.02
"""Seconds of one wait, between two looks at who is gone."""
_DAMAGED = 8
"""Damaged frames in a row that are asked for again before it is an error."""
_LAST_WORDS = 0.2
"""Seconds that the last acknowledgement, or a goodbye without a flush, may take to go out."""


class LinkedTransport(Transport):
    """Messages over the links of a mesh or tree; a subclass says over which wire."""

    wire_class: ClassVar[type[Wire]]

    def __init__(self, seat: Seat, options: TransportOptions) -> None:
        super().__init__(seat, options)
        self._rank, self._size = seat.rank, seat.size
        self._lane = Lane.of(seat.run_id, seat.attempt)
        self._arity = arity_of(options.topology, seat.size)
        self._links = {
            rank: Link(rank, rank < seat.rank, options.queue, options.window)
            for rank in neighbours(seat.rank, seat.size, self._arity)
        }
        self._relays = self._arity is not None and len(self._links) > 1
        self._wire = self._make_wire()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._inbox: deque[Message] = deque()
        self._heard: dict[int, int] = {}
        self._sequence = 0
        self._looked = 0.0
        self._failure: Exception | None = None
        self._absorbs = False
        self._left = self._closed = self._ended = False

    def _make_wire(self) -> Wire:
        return self.wire_class(self.seat, self.options)

    # -- what members call

    def address(self) -> bytes:
        """Listen, if a higher rank will dial, and return what it needs for that."""
        return self._wire.listen(dialled=any(rank > self._rank for rank in self._links))

    def connect(self, addresses: Sequence[bytes]) -> None:
        """Dial the lower ranks among the neighbours, and wait until all are met."""
        deadline = time.monotonic() + self.options.connect_timeout
        for link in self._links.values():
            if link.dialled:
                self._wire.dial(link.rank, addresses[link.rank])
        while missing := [link for link in self._links.values() if not link.met]:
            if time.monotonic() > deadline:
                where = ", ".join(f"member {one.rank} at {self._wire.place(addresses[one.rank])}" for one in missing)
                raise self._lose(
                    f"member {self._rank} did not meet {where} within {self.options.connect_timeout:g} s: is the "
                    "address one that it reaches (option `host`), and does a firewall close the port (option "
                    "`ports`)? A slow start needs a longer `connect_timeout`",
                    missing[0].rank,
                )
            self._advance(_SLICE)
            self._raise_failure()
        if self._relays:
            self._thread = threading.Thread(target=self._pass_on_forever, name=f"relay-{self._rank}", daemon=True)
            self._thread.start()

    def send(self, kind: int, step: int, payload: Payload, *, to: int | None = None) -> None:
        """Send to all others, or to one; see `Transport.send`."""
        self._check(kind, payload, to)
        frame = Frame(
            kind, self._rank, step, payload, ALL if to is None else to, self._sequence, checksum=zlib.crc32(payload)
        )
        self._sequence += 1
        with self._changed:
            self._raise_failure()
            for link in self._ways(to):
                self._await_room(link, HEADER_SIZE + len(payload))
                if not link.gone:
                    link.add(pack(self._lane, frame, link.sent, link.done))
                    self.figures.messages_sent += 1
                    if self._thread is None:
                        self._flush(link)
        if self._thread is not None:
            self._wire.wake()

    def receive(self, timeout: float = 0.0) -> list[Message]:
        """Return what has come; see `Transport.receive`."""
        with self._changed:
            deadline = time.monotonic() + timeout
            left = 0.0 if self._inbox else timeout
            while True:
                self._advance(min(left, _SLICE))
                left = deadline - time.monotonic()
                if self._inbox or self._failure is not None or left <= 0:
                    break
            if not self._inbox:  # what came before a loss is handed out first
                self._raise_failure()
            found = list(self._inbox)
            self._inbox.clear()
        if self._thread is not None:
            self._wire.wake()  # there may be something that waited for room
        return found

    def close(self, flush: float = 5.0) -> None:
        """Say goodbye, deliver what waits within `flush` seconds, and free ports and threads.

        A member that passes on stays, within that time, until at most one neighbour is left.
        """
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + flush
        with self._changed:
            self._absorbs = True
            self._inbox.clear()
            while self._relays and len(self._open_links()) > 1 and self._may_wait(deadline):
                self._advance(_SLICE)
            self._leave()
            while any(link.window for link in self._open_links()) and self._may_wait(deadline):
                self._advance(_SLICE)
        self._free(_LAST_WORDS)

    def abort(self) -> None:
        """Free everything without a word, as the death of the process would."""
        if not self._closed:
            self._closed = self._left = True
            self._free(0.0)

    def _free(self, linger: float) -> None:
        self._ended = True
        if self._thread is not None:
            self._wire.wake()
            self._thread.join()
        self._wire.close(linger)

    # -- their parts

    def _check(self, kind: int, payload: Payload, to: int | None) -> None:
        if kind not in range(_HELLO):
            raise ConfigurationError(
                f"a message's kind is 0 to {_HELLO - 1}, the others are the transport's, got {kind}"
            )
        if len(payload) > self.options.largest_message:
            raise ConfigurationError(
                f"a message of {len(payload)} bytes is larger than largest_message={self.options.largest_message}"
            )
        if to is not None and (to == self._rank or not 0 <= to < self._size):
            raise ConfigurationError(f"member {self._rank} of {self._size} cannot send to member {to}")

    def _ways(self, to: int | None) -> Iterable[Link]:
        """Return the links that a message of this member takes."""
        return self._links.values() if to is None else (self._links[next_hop(self._rank, to, self._arity)],)

    def _await_room(self, link: Link, size: int) -> None:
        """Wait until a link takes a frame, for as long as its reader takes any."""
        if link.gone or link.has_room(size):
            return
        self._absorbs = True  # two members that send to each other must not wait for each other
        first, deadline = link.first, time.monotonic() + self.options.send_timeout
        while not (link.gone or link.has_room(size)):
            if link.first != first:
                first, deadline = link.first, time.monotonic() + self.options.send_timeout
            elif time.monotonic() > deadline:
                raise self._lose(
                    f"member {link.rank} took no message for {self.options.send_timeout:g} s (option `send_timeout`): "
                    f"{len(link.window)} wait for it (options `queue` and `window`)",
                    link.rank,
                )
            self._advance(_SLICE)
            self._raise_failure()
        self._absorbs = False

    def _advance(self, timeout: float) -> None:
        """Do what there is to do, or let the thread do it, for at most `timeout` seconds without a result."""
        if self._thread is None:
            self._turn(self._wire.take(timeout))
        elif timeout > 0:
            self._wire.wake()
            self._changed.wait(timeout)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _lose(self, text: str, rank: int) -> PeerLost:
        """Note a loss, once; return the error that tells it."""
        lost = PeerLost(text, rank)
        self._failure = self._failure or lost
        return lost

    def _open_links(self) -> list[Link]:
        return [link for link in self._links.values() if link.met and not link.gone]

    def _may_wait(self, deadline: float) -> bool:
        return self._failure is None and time.monotonic() < deadline

    # -- the work

    def _pass_on_forever(self) -> None:
        while not self._ended and self._failure is None:
            arrivals = self._wire.take(_SLICE)
            with self._changed:
                try:
                    self._turn(arrivals)
                except Exception as error:
                    self._failure = self._failure or error
                if self._failure is not None:
                    self._leave()  # the neighbours need not wait until this member looks
                self._changed.notify_all()

    def _turn(self, arrivals: Iterable[Arrival]) -> None:
        """Take in what has come, hand over what can go, and look who is gone."""
        for rank, what in arrivals:
            if isinstance(what, Change):
                self._note(rank, what)
            else:
                self._take(rank, what)
        for link in self._links.values() if self._relays else ():
            while link.held and self._deliver(link, link.held[0]):
                self._finish(link, link.held.popleft())
        for link in self._links.values():
            if link.cursor < link.sent:
                self._flush(link)
            if link.up and link.owes:
                self._tell(link, _ACK)
        now = time.monotonic()
        if now >= self._looked + _SLICE:
            self._looked = now
            for link in self._links.values():
                self._look_after(link, now)

    def _flush(self, link: Link) -> None:
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

    def _tell(self, link: Link, kind: int, step: int = 0) -> None:
        """Send a control frame: it has no number of its own, and says how far this side is both ways."""
        frame = Frame(kind, self._rank, step, b"")
        if self._hand_over(link, pack(self._lane, frame, link.cursor, link.done)):
            link.note_told()

    def _take(self, rank: int | None, data: bytes | memoryview) -> None:
        self.figures.bytes_received += len(data)
        link = self._links.get(-1 if rank is None else rank)
        if link is None:
            raise WireError(f"a frame came from member {rank}, who is no neighbour of member {self._rank}")
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
        if frame.kind in _CONTROL and frame.kind != _BYE:
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
            self._take_leave_of(link, frame.step)
            return True
        if frame.sequence < self._heard.get(frame.origin, 0):
            return True
        onward = self._onward(link, frame)
        mine = frame.to in (ALL, self._rank)
        full = self._thread is not None and len(self._inbox) >= self.options.queue and not self._absorbs
        if (mine and full) or not all(one.has_room(HEADER_SIZE + len(frame.payload)) for one in onward):
            return False
        for one in onward:
            one.add(pack(self._lane, frame, one.sent, one.done))
        self._heard[frame.origin] = frame.sequence + 1
        if mine and not self._closed:
            self.figures.messages_received += 1
            self._inbox.append(Message(frame.kind, frame.origin, frame.step, memoryview(frame.payload)))
        return True

    def _onward(self, link: Link, frame: Frame) -> list[Link]:
        """Return the links that a frame goes on to; WireError where it cannot have come this way."""
        origin, to = frame.origin, frame.to
        rightly = origin < self._size and origin != self._rank and (to == ALL or to < self._size)
        if not rightly or next_hop(self._rank, origin, self._arity) != link.rank:
            raise WireError(f"a frame from member {link.rank} claims to go from member {origin} to {to}")
        if self._arity is None or to == self._rank:
            return []
        ways = self._links.values() if to == ALL else (self._links[next_hop(self._rank, to, self._arity)],)
        return [one for one in ways if one is not link and not one.gone]

    # -- losses and goodbyes

    def _note(self, rank: int | None, change: Change) -> None:
        link = self._links.get(-1 if rank is None else rank)
        if link is not None and change is Change.LOST:
            self._note_loss(link)
        elif link is not None:
            link.lost_since = None
            link.asking.reset()
            self._tell(link, _HELLO, link.taken)
        elif change is Change.LOST:  # which of those that dialled it was, a frame to each tells
            for one in self._links.values():
                if not one.dialled and one.up and not one.gone:
                    one.suspect_until = time.monotonic() + self.options.dead_after
                    self._tell(one, _ACK)

    def _note_loss(self, link: Link) -> None:
        link.up = False
        if link.met and not link.gone and link.lost_since is None:
            link.lost_since = time.monotonic()

    def _look_after(self, link: Link, now: float) -> None:
        """Ask what should have come, and find out who is lost."""
        if link.gone:
            return
        if link.lost_since is not None:
            if now - link.lost_since > self.options.dead_after:
                self._lose(
                    f"member {link.rank} was lost: its connection to member {self._rank} closed, and was not made "
                    f"again within {self.options.dead_after:g} s (option `dead_after`)",
                    link.rank,
                )
        elif not link.up:
            if link.dialled and link.asking.due(now):
                self._tell(link, _HELLO, link.taken)
        elif link.gap:
            self._look_for_missing(link, now)
        elif link.window and link.prodding.due(now):
            self._tell(link, _ACK, 1)
        elif now < link.suspect_until:
            self._tell(link, _ACK)

    def _look_for_missing(self, link: Link, now: float) -> None:
        """Ask for what is missing, and do not wait for it for ever."""
        link.gap_since = now if link.gap_since is None else link.gap_since
        if now - link.gap_since > self.options.send_timeout:
            self._lose(
                f"frame {link.taken} of member {link.rank} was lost, and did not come again within "
                f"{self.options.send_timeout:g} s (option `send_timeout`); its sender keeps what was not acknowledged, "
                "as much as options `queue` and `window` say",
                link.rank,
            )
        elif link.asking.due(now):
            self._tell(link, _RESEND, link.taken)

    def _take_leave_of(self, link: Link, blamed: int) -> None:
        """Note a neighbour's goodbye; above 0 it is one for the rank below that, who was lost."""
        link.gone = True
        if blamed == link.rank + 1:
            self._lose(f"member {link.rank} left while others reached each other through it only", link.rank)
        elif blamed:
            self._lose(f"member {link.rank} left since it had lost member {blamed - 1}", blamed - 1)

    def _leave(self) -> None:
        """Say goodbye to who is there, and why when it is not the end of the work."""
        if self._left:
            return
        self._left = True
        blamed = 0
        if isinstance(self._failure, PeerLost) and self._failure.rank is not None:
            blamed = self._failure.rank + 1
        elif self._relays and len(self._open_links()) > 1:
            blamed = self._rank + 1
        for link in self._open_links():
            link.add(pack(self._lane, Frame(_BYE, self._rank, blamed, b""), link.sent, link.done))
            if self._thread is None or threading.current_thread() is self._thread:
                self._flush(link)
