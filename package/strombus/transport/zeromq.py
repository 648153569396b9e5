"""Encrypted sockets between all members: one connection for each pair.

The lower rank of a pair listens on a ROUTER, the higher one dials it with a DEALER, so that a member has one open
port at most. A ROUTER told to be strict says when a message cannot go to a slow or missing reader, where it would
else drop it without a word. Frames are numbered on each link: a gap is an error, never a silence.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from strombus.errors import ConfigurationError, PeerLost, WireError
from strombus.transport.base import Keys, Message, Payload, Seat, Transport, TransportOptions
from strombus.transport.frames import Frame, Lane, pack, parse

__all__ = ["ZeroMQTransport", "make_keys"]

_HELLO, _WELCOME, _BYE, _PROBE = 250, 251, 252, 253
_CONTROL = frozenset((_HELLO, _WELCOME, _BYE, _PROBE))
_SLICE = 0.02
"""Seconds of one wait, between two looks at who is gone."""


def make_keys() -> Keys:
    """Make the key pairs of one gang."""
    (server_public, server_secret), (public, secret) = zmq.curve_keypair(), zmq.curve_keypair()
    return Keys(server_public, server_secret, public, secret)


class _Link:
    """The state of the connection to one member."""

    def __init__(self, rank: int, dialled: zmq.Socket[bytes] | None) -> None:
        self.rank, self.dialled = rank, dialled
        self.met = False
        self.gone = False  # it said that it leaves
        self.sent = 0
        self.taken = 0
        self.lost_since: float | None = None


class ZeroMQTransport(Transport):
    """Messages over ZeroMQ with CURVE; see `Transport`."""

    name: ClassVar[str] = "zeromq"

    def __init__(self, seat: Seat, options: TransportOptions) -> None:
        super().__init__(seat, options)
        if seat.keys is None:
            raise ConfigurationError("the zeromq transport needs the gang's keys: make them with make_keys()")
        self._keys = seat.keys
        self._lane = Lane.of(seat.run_id, seat.attempt)
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._links: dict[int, _Link] = {}
        self._monitors: dict[int, zmq.Socket[bytes]] = {}
        self._router: zmq.Socket[bytes] | None = None
        self._guard: ThreadAuthenticator | None = None
        self._inbox: deque[Message] = deque()
        self._closed = False

    # -- meeting

    def address(self) -> bytes:
        """Listen, if a higher rank will dial, and return host and port."""
        host = self.options.host or os.environ.get("STROMBUS_HOST") or _own_address()
        port = 0
        if self.seat.rank < self.seat.size - 1:
            self._guard = ThreadAuthenticator(self._context)
            self._guard.start()
            self._guard.configure_curve_callback("*", _OneKey(self._keys.public))
            self._router = self._socket(zmq.ROUTER)
            self._router.curve_server = True
            self._router.curve_publickey, self._router.curve_secretkey = (
                self._keys.server_public,
                self._keys.server_secret,
            )
            self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)
            port = self._listen(self._router, host)
            self._watch(-1, self._router)
        return json.dumps([host, port]).encode()

    def connect(self, addresses: Sequence[bytes]) -> None:
        """Dial the lower ranks, and wait until all are met."""
        for rank in range(self.seat.size):
            if rank == self.seat.rank:
                continue
            dialled = self._dial(rank, addresses[rank]) if rank < self.seat.rank else None
            self._links[rank] = _Link(rank, dialled)
            if dialled is not None:
                self._push(self._links[rank], _HELLO, 0, b"")
        deadline = time.monotonic() + self.options.connect_timeout
        while missing := [link for link in self._links.values() if not link.met]:
            if time.monotonic() > deadline:
                where = ", ".join(f"member {one.rank} at {_place(addresses[one.rank])}" for one in missing)
                raise PeerLost(
                    f"member {self.seat.rank} did not meet {where} within {self.options.connect_timeout:g} s: is the "
                    "address one that it reaches (option `host`), and does a firewall close the port (option "
                    "`ports`)? A slow start needs a longer `connect_timeout`",
                    missing[0].rank,
                )
            self._pump(_SLICE)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        made: zmq.Socket[bytes] = self._context.socket(kind)
        options = self.options
        made.setsockopt(zmq.SNDHWM, options.queue)
        made.setsockopt(zmq.RCVHWM, options.queue)
        made.setsockopt(zmq.MAXMSGSIZE, options.largest_message)
        made.setsockopt(zmq.LINGER, 0)
        # Not ZeroMQ's own heartbeats: they give a slow reader up, and may end the process when its queue is full.
        # A dead process closes its connections, a dead host is found by TCP, and a process that hangs by its engine.
        made.setsockopt(zmq.TCP_KEEPALIVE, 1)
        made.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 1)
        made.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
        made.setsockopt(zmq.TCP_KEEPALIVE_CNT, max(1, int(options.dead_after)))
        made.setsockopt(zmq.RECONNECT_IVL, 50)
        made.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        self._poller.register(made, zmq.POLLIN)
        return made

    def _listen(self, router: zmq.Socket[bytes], host: str) -> int:
        low, high = self.options.ports or (0, 0)
        try:
            if not self.options.ports:
                return int(router.bind_to_random_port(f"tcp://{host}"))
            return int(router.bind_to_random_port(f"tcp://{host}", low, high + 1, max_tries=4 * (high - low + 1)))
        except zmq.ZMQError as error:
            raise ConfigurationError(
                f"member {self.seat.rank} cannot listen on {host}, ports {low} to {high}: {error}; give an address of "
                "this machine as `host`, or other `ports`"
            ) from error

    def _dial(self, rank: int, address: bytes) -> zmq.Socket[bytes]:
        host, port = json.loads(address)
        dealer = self._socket(zmq.DEALER)
        dealer.curve_serverkey = self._keys.server_public
        dealer.curve_publickey, dealer.curve_secretkey = self._keys.public, self._keys.secret
        dealer.setsockopt(zmq.IDENTITY, _identity(self.seat.rank))
        self._watch(rank, dealer)
        dealer.connect(f"tcp://{host}:{port}")
        return dealer

    def _watch(self, rank: int, watched: zmq.Socket[bytes]) -> None:
        """Have a socket tell of connections that were lost and made."""
        monitor = watched.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._monitors[rank] = monitor
        self._poller.register(monitor, zmq.POLLIN)

    # -- messages

    def send(self, kind: int, step: int, payload: Payload, *, to: int | None = None) -> None:
        """Send to all others, or to one; see `Transport.send`."""
        if kind in _CONTROL:
            raise ConfigurationError(f"kinds {min(_CONTROL)} to {max(_CONTROL)} are the transport's own, got {kind}")
        links = self._links.values() if to is None else [self._links[to]]
        for link in links:
            if not link.gone:
                self._push(link, kind, step, payload)
                self.figures.messages_sent += 1

    def receive(self, timeout: float = 0.0) -> list[Message]:
        """Return what has come; see `Transport.receive`."""
        self._pump(0.0 if self._inbox else timeout)
        found = list(self._inbox)
        self._inbox.clear()
        return found

    def _push(self, link: _Link, kind: int, step: int, payload: Payload) -> None:
        frame = pack(self._lane, kind, self.seat.rank, link.sent, step, payload)
        deadline = time.monotonic() + self.options.send_timeout
        while not self._try(link, frame):
            if time.monotonic() > deadline:
                raise PeerLost(
                    f"member {link.rank} took no message for {self.options.send_timeout:g} s (option `send_timeout`): "
                    f"{self.options.queue} wait for it",
                    link.rank,
                )
            self._pump(_SLICE)
        link.sent += 1
        self.figures.bytes_sent += len(frame)

    def _try(self, link: _Link, frame: bytes) -> bool:
        """Hand a frame over; False when its reader is slow, or not there at the moment."""
        large = len(frame) >= zmq.COPY_THRESHOLD
        try:
            if link.dialled is not None:
                link.dialled.send(frame, zmq.NOBLOCK, copy=not large)
            else:
                assert self._router is not None
                self._router.send_multipart([_identity(link.rank), frame], zmq.NOBLOCK, copy=not large)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._note_loss(link)
            return False
        return True

    def _pump(self, timeout: float) -> None:
        """Take in all that has come, and look who is gone."""
        for ready, _ in self._poller.poll(int(1000 * timeout)):
            rank = next((rank for rank, monitor in self._monitors.items() if monitor is ready), None)
            if rank is not None:
                self._take_event(rank, recv_monitor_message(ready, zmq.NOBLOCK))
            else:
                for parts in _drain(ready):
                    self._take(parts)
        self._check_losses()

    def _take(self, parts: list[Any]) -> None:
        data = parts[-1].buffer
        self.figures.bytes_received += len(data)
        frame = parse(data, self._lane)
        if frame is None:
            return
        link = self._links.get(frame.origin)
        if link is None or (len(parts) == 2 and parts[0].bytes != _identity(frame.origin)):
            raise WireError(f"a frame claims to come from member {frame.origin}")
        if frame.number != link.taken:
            raise PeerLost(
                f"frames {link.taken} to {frame.number - 1} of member {frame.origin} were lost", frame.origin
            )
        link.taken += 1
        link.lost_since = None
        self._accept(link, frame)

    def _accept(self, link: _Link, frame: Frame) -> None:
        if frame.kind == _HELLO:
            link.met = True
            self._push(link, _WELCOME, 0, b"")
        elif frame.kind == _WELCOME:
            link.met = True
        elif frame.kind == _BYE:
            link.gone = True
        elif frame.kind not in _CONTROL:
            self.figures.messages_received += 1
            self._inbox.append(Message(frame.kind, frame.origin, frame.step, frame.payload))

    # -- losses

    def _take_event(self, rank: int, event: Any) -> None:
        lost = event["event"] == zmq.EVENT_DISCONNECTED
        if rank >= 0:
            link = self._links.get(rank)
            if link is not None and lost:
                self._note_loss(link)
            elif link is not None:
                link.lost_since = None
        elif lost:
            for link in self._links.values():  # which of those that dialled it was, a frame to each tells
                if link.dialled is None and link.met and not link.gone and self._try_probe(link):
                    link.sent += 1

    def _try_probe(self, link: _Link) -> bool:
        return self._try(link, pack(self._lane, _PROBE, self.seat.rank, link.sent, 0, b""))

    def _note_loss(self, link: _Link) -> None:
        if link.met and not link.gone and link.lost_since is None:
            link.lost_since = time.monotonic()

    def _check_losses(self) -> None:
        for link in self._links.values():
            if link.gone or link.lost_since is None or self._inbox:  # what came before is handed out first
                continue
            waited = time.monotonic() - link.lost_since
            if waited > self.options.dead_after:
                raise PeerLost(
                    f"member {link.rank} was lost: its connection to member {self.seat.rank} closed, and was not made "
                    f"again within {self.options.dead_after:g} s (option `dead_after`)",
                    link.rank,
                )

    # -- the end

    def close(self, flush: float = 5.0) -> None:
        """Say goodbye, deliver what waits within `flush` seconds, and free port and threads."""
        if self._closed:
            return
        self._closed = True
        sockets = [link.dialled for link in self._links.values() if link.dialled is not None]
        if self._router is not None:
            sockets.append(self._router)
        for link in self._links.values():
            if not link.gone:
                self._try(link, pack(self._lane, _BYE, self.seat.rank, link.sent, 0, b""))
        for one in sockets:
            one.disable_monitor()
            one.close(linger=int(1000 * flush))
        for monitor in self._monitors.values():
            monitor.close(linger=0)
        if self._guard is not None:
            self._guard.stop()
        self._context.term()


class _OneKey:
    """Lets in who holds the gang's key."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public


def _identity(rank: int) -> bytes:
    return b"member-%d" % rank


def _place(address: bytes) -> str:
    host, port = json.loads(address)
    return f"{host}:{port}" if port else str(host)


def _drain(ready: zmq.Socket[bytes]) -> Iterator[list[Any]]:
    """Yield what has come, without waiting and without copying."""
    while True:
        try:
            yield ready.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return


def _own_address() -> str:
    """Return the address of the interface that leads outwards; the loopback's where none does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation; nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
