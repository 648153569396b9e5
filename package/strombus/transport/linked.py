"""Each message once and in order, over wires that break: numbers, windows, resending, and passing on in trees.

In a mesh the member's own thread does all the work, inside its calls. A member with several neighbours in a tree passes
on what the others say to one another, and must do so while it computes: it has a thread for that, which is then the
only one to touch the wire.
"""

from __future__ import annotations

import contextlib
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import ClassVar

from strombus.errors import ConfigurationError, ExecutorError, PeerLost, WireError
from strombus.transport.addresses import chosen_by
from strombus.transport.base import Message, Payload, Seat, Transport, TransportOptions
from strombus.transport.frames import ALL, HEADER_SIZE, Frame
from strombus.transport.links import Link
from strombus.transport.switch import CONTROL, SLICE, Switch
from strombus.transport.wire import Arrival, Wire

__all__ = ["LinkedTransport"]

_FURTHER = 1.0
"""Seconds that a neighbour gets to say that it is somebody behind it who takes nothing."""
_LAST_WORDS = 0.2
"""Seconds that the last acknowledgement, or a goodbye without a flush, may take to go out."""


class LinkedTransport(Transport):
    """Messages over the links of a mesh or tree; a subclass says over which wire."""

    wire_class: ClassVar[type[Wire]]
    tolerates: ClassVar[bool] = True

    def __init__(self, seat: Seat, options: TransportOptions) -> None:
        super().__init__(seat, options)
        self._rank, self._size = seat.rank, seat.size
        self._wire = self._make_wire()
        self._switch = Switch(seat, options, self._wire, self.figures)
        self.lost = self._switch.lost
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._sequence = 0
        self._closed = self._ended = False

    def _make_wire(self) -> Wire:
        return self.wire_class(self.seat, self.options)

    # -- what members call

    def address(self) -> bytes:
        """Listen, if anybody will dial, and return what they need for that."""
        return self._wire.listen(dialled=not all(link.dialled for link in self._switch.links.values()))

    def connect(self, addresses: Sequence[bytes]) -> None:
        """Dial those neighbours that listen, and wait until all are met."""
        deadline = time.monotonic() + self.options.connect_timeout
        for link in self._switch.links.values():
            if link.dialled:
                self._wire.dial(link.rank, addresses[link.rank])
        while missing := [link for link in self._switch.links.values() if not link.met]:
            if time.monotonic() > deadline:
                raise self._switch.lose(self._explain_missing(missing, addresses), missing[0].rank)
            self._go_on("it met the others")
            self._advance(SLICE)
            self._switch.raise_failure()
        if self._switch.relays:
            self._switch.bounded = True
            self._begin_to_pass_on()

    def serve(self) -> bytes:
        """Pass on what the members of a star say, whenever they come; see `Transport.serve`."""
        address = self.address()
        self._switch.deaf = True
        self._begin_to_pass_on()
        return address

    def _begin_to_pass_on(self) -> None:
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
            self._switch.raise_failure()
            for link in self._ways(to):
                self._await_room(link, HEADER_SIZE + len(payload))
                if not link.gone:
                    self._switch.post(link, frame)
                    self.figures.messages_sent += 1
                    if self._thread is None:
                        self._switch.flush(link)
        if self._thread is not None:
            self._wire.wake()

    def receive(self, timeout: float = 0.0) -> list[Message]:
        """Return what has come; see `Transport.receive`."""
        with self._changed:
            deadline = time.monotonic() + timeout
            left = 0.0 if self._switch.inbox else timeout
            while True:
                self._advance(min(left, SLICE))
                left = deadline - time.monotonic()
                if self._switch.inbox or self._switch.failure is not None or left <= 0:
                    break
            if not self._switch.inbox:  # what came before a loss is handed out first
                self._switch.raise_failure()
            found = list(self._switch.inbox)
            self._switch.inbox.clear()
        if found and self._thread is not None:
            self._wire.wake()  # there may be something that waited for room
        return found

    def tolerate(self) -> None:
        """Note who is lost from now on; see `Transport.tolerate`."""
        with self._changed:
            self._switch.tolerate()

    def forget(self, rank: int) -> None:
        """Go on without a member; see `Transport.forget`."""
        with self._changed:
            self._switch.forget(rank)

    def close(self, flush: float = 5.0) -> None:
        """Say goodbye, deliver what waits within `flush` seconds, and free ports and threads.

        A member that passes on stays, within that time, until at most one neighbour is left.
        """
        if self._closed:
            return
        self._closed = self._switch.deaf = True
        deadline = time.monotonic() + flush
        with self._changed, contextlib.suppress(PeerLost, WireError):  # there is nobody left to tell
            self._switch.absorbs = True
            self._switch.inbox.clear()
            while self._switch.relays and len(self._switch.open_links()) > 1 and self._may_wait(deadline):
                self._advance(SLICE)
            self._switch.leave()
            while any(link.window for link in self._switch.open_links()) and self._may_wait(deadline):
                self._advance(SLICE)
        self._stop()
        for link in self._switch.links.values():
            self._switch.flush(link)
        self._wire.close(_LAST_WORDS)

    def abort(self) -> None:
        """Free everything without a word, as the death of the process would."""
        if not self._closed:
            self._closed = self._switch.left = True
            self._stop()
            self._wire.close(0.0)

    def _stop(self) -> None:
        """End the thread; from then on the wire is the caller's."""
        self._ended = True
        if self._thread is not None:
            self._wire.wake()
            self._thread.join()
            self._thread = None

    # -- their parts

    def _explain_missing(self, missing: Sequence[Link], addresses: Sequence[bytes]) -> str:
        where = ", ".join(
            f"{self._switch.name(one.rank)} at {self._wire.place(addresses[one.rank])}" for one in missing
        )
        said = chosen_by(self.options)
        return (
            f"member {self._rank} did not meet {where} within {self.options.connect_timeout:g} s: is the address one "
            f"that it reaches ({said or 'option `host`'}), and does a firewall close the port (`ports`)? Members "
            "that reach one host alone need topology='star' and its `hub`; a slow start, a longer `connect_timeout`"
        )

    def _check(self, kind: int, payload: Payload, to: int | None) -> None:
        if kind not in range(CONTROL.start):
            raise ConfigurationError(
                f"a message's kind is 0 to {CONTROL.start - 1}, the others are the transport's, got {kind}"
            )
        if len(payload) > self.options.largest_message:
            raise ConfigurationError(
                f"a message of {len(payload)} bytes is larger than largest_message={self.options.largest_message}"
            )
        if to is not None and (to == self._rank or not 0 <= to < self._size):
            raise ConfigurationError(f"member {self._rank} of {self._size} cannot send to member {to}")

    def _ways(self, to: int | None) -> Iterable[Link]:
        """Return the links that a message of this member takes."""
        links = self._switch.links
        return links.values() if to is None else (links[self._switch.shape.next_hop(self._rank, to)],)

    def _await_room(self, link: Link, size: int) -> None:
        """Wait until a link takes a frame, for as long as its reader takes any, or sends some itself."""
        if link.gone or link.has_room(size):
            return
        self._switch.absorbs = True  # two members that send to each other must not wait for each other
        patience = self.options.send_timeout + (0.0 if self._switch.shape.is_mesh else _FURTHER)
        seen, deadline = (link.first, link.taken), time.monotonic() + patience
        while not (link.gone or link.has_room(size)):
            if (link.first, link.taken) != seen:  # it takes, or says, something
                seen, deadline = (link.first, link.taken), time.monotonic() + patience
            elif time.monotonic() > deadline:
                self._switch.lose(self._switch.tell_crowded(link), link.rank)
            self._go_on(f"{self._switch.name(link.rank)} took no message")
            self._advance(SLICE)
            self._switch.raise_failure()
        self._switch.absorbs = False

    def _go_on(self, doing: str) -> None:
        if self.stopping():
            raise ExecutorError(f"member {self._rank} was asked to stop while {doing}")

    def _advance(self, timeout: float) -> None:
        """Do what there is to do, or let the thread do it, for at most `timeout` seconds without a result."""
        if self._thread is None:
            self._switch.turn(self._wire.take(timeout))
        elif timeout > 0:
            self._wire.wake()
            self._changed.wait(timeout)

    def _may_wait(self, deadline: float) -> bool:
        return self._switch.failure is None and time.monotonic() < deadline and not self.stopping()

    # -- the work

    def _listen(self) -> tuple[list[Arrival], Exception | None]:
        try:
            return self._wire.take(SLICE), None
        except Exception as error:
            return [], error

    def _pass_on_forever(self) -> None:
        while not self._ended and self._switch.failure is None:
            arrivals, broken = self._listen()
            with self._changed:
                try:
                    self._switch.turn(arrivals)
                except Exception as error:
                    broken = error
                self._switch.failure = self._switch.failure or broken
                if self._switch.failure is not None:  # the neighbours need not wait until this member looks
                    self._switch.leave()
                    for link in self._switch.links.values():
                        self._switch.flush(link)
                self._changed.notify_all()
