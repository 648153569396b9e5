"""Where a gang's members meet the driver over ZeroMQ: for engines whose workers can dial the driver's host.

The wire is encrypted and authenticated with CURVE keys that are made for one gang and travel to the members
through the engine's own task channel. A message is a JSON header and raw bytes; nothing on it is pickled.

Examples
--------
On the driver::

    with RendezvousServer(size=2, run_id="r", attempt=0, timeout=60, host="127.0.0.1") as server:
        tickets = [server.ticket(rank) for rank in range(2)]
        ...  # the engine starts both members with their tickets
        server.board.supervise(poll=lambda: None)

On a worker::

    with RendezvousMember(ticket) as member:
        member.exchange(b"my address")
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from strombus.executors.board import Board
from strombus.executors.board_pump import BoardPump
from strombus.executors.members import LinkedMember, MemberPump, Message, Ticket
from strombus.ports import bind

__all__ = ["RendezvousMember", "RendezvousServer", "RendezvousTicket"]

LINGER = 1000
"""Milliseconds to deliver the last messages."""
LARGEST = 2**26
"""Bytes of the largest message that is taken in."""


@dataclass(frozen=True)
class RendezvousTicket(Ticket):
    """A `Ticket` with the driver's address and the gang's keys; hand it out through the engine only."""

    address: str
    server_public: bytes
    public: bytes
    secret: bytes = field(repr=False)

    def member(self) -> RendezvousMember:
        """Return what joins the gang when it is entered."""
        return RendezvousMember(self)


class RendezvousServer:
    """The driver's end; a context manager.

    Parameters
    ----------
    size, run_id, attempt
        As in `Member`.
    timeout : float
        Seconds to wait for all members, and for each exchange.
    host : str
        Address of this host that the members can dial; only this interface is listened on, within the environment's
        STROMBUS_PORTS where it holds a range.
    survive : bool
        See `Board`.

    Attributes
    ----------
    board : Board
        Tells of lost members (``board.lose(rank, reason)``) and waits (``board.supervise``).
    """

    def __init__(
        self, size: int, run_id: str, attempt: int, timeout: float, host: str = "127.0.0.1", survive: bool = False
    ) -> None:
        self.board = Board(size, run_id, attempt, timeout, survive)
        self._host = host
        self._server_keys = zmq.curve_keypair()
        self._member_keys = zmq.curve_keypair()
        self._pump = BoardPump(self.board, lambda: self._channel)

    def __enter__(self) -> Self:
        self._channel = _RouterChannel(self._host, self._server_keys, self._member_keys[0])
        self._pump.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pump.__exit__()

    def ticket(self, rank: int) -> RendezvousTicket:
        """Return what member `rank` needs to come; after the server was entered."""
        plain = self.board.ticket(rank)
        return RendezvousTicket(
            **vars(plain),
            address=self._channel.address,
            server_public=self._server_keys[0],
            public=self._member_keys[0],
            secret=self._member_keys[1],
        )


class RendezvousMember:
    """A worker's end: a context manager that yields the `LinkedMember`; `run_member` runs a body on it."""

    def __init__(self, ticket: RendezvousTicket, host: str | None = None) -> None:
        self._member = LinkedMember(ticket, host)
        self._pump = MemberPump(self._member, lambda: _DealerChannel(ticket, self._member.address))

    def __enter__(self) -> LinkedMember:
        return self._pump.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pump.__exit__()


class _RouterChannel:
    """All members behind one ROUTER socket."""

    def __init__(self, host: str, keys: tuple[bytes, bytes], member_public: bytes) -> None:
        self._context = zmq.Context()
        self._guard = ThreadAuthenticator(self._context)
        self._guard.start()
        self._guard.configure_curve_callback("*", _OneKey(member_public))
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.curve_server = True
        self._socket.curve_publickey, self._socket.curve_secretkey = keys
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LARGEST)
        self._socket.setsockopt(zmq.LINGER, LINGER)
        if ":" in host:
            self._socket.setsockopt(zmq.IPV6, 1)
        host = f"[{host}]" if ":" in host else host
        self.address = f"tcp://{host}:{bind(self._socket, host)}"

    def send(self, messages: Mapping[str, list[Message]]) -> None:
        for address, mail in messages.items():
            for header, payload in mail:
                self._socket.send_multipart([address.encode(), json.dumps(header).encode(), payload])

    def receive(self) -> Iterator[tuple[str, Message]]:
        for frames in _drain(self._socket):
            if len(frames) == 3 and (message := _decode(frames[1], frames[2])) is not None:
                yield frames[0].decode(errors="replace"), message

    def close(self) -> None:
        self._socket.close()
        self._guard.stop()
        self._context.term()


class _DealerChannel:
    """One member's DEALER socket; its identity is its claim."""

    def __init__(self, ticket: RendezvousTicket, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.curve_serverkey = ticket.server_public
        self._socket.curve_publickey, self._socket.curve_secretkey = ticket.public, ticket.secret
        self._socket.setsockopt(zmq.IDENTITY, address.encode())
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, LINGER)
        self._socket.setsockopt(zmq.SNDTIMEO, LINGER)
        self._socket.setsockopt(zmq.IPV6, int("[" in ticket.address))
        self._socket.connect(ticket.address)

    def send(self, messages: list[Message]) -> None:
        for header, payload in messages:
            self._socket.send_multipart([json.dumps(header).encode(), payload])

    def receive(self) -> list[Message]:
        decoded = (_decode(*frames) for frames in _drain(self._socket) if len(frames) == 2)
        return [message for message in decoded if message is not None]

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class _OneKey:
    """Lets in who holds the gang's key."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public


def _drain(socket: zmq.Socket[bytes]) -> Iterator[list[bytes]]:
    """Yield what has come, without waiting."""
    while True:
        try:
            yield socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return


def _decode(head: bytes, payload: bytes) -> Message | None:
    """Read a message; None for what is none."""
    try:
        header = json.loads(head)
    except ValueError:
        return None
    return (header, payload) if isinstance(header, dict) and isinstance(header.get("kind"), str) else None
