"""Encrypted sockets between members: one connection for each pair of neighbours.

The lower rank of a pair listens on a ROUTER, the higher one dials it with a DEALER, so that a member has one open
port at most. A ROUTER told to be strict says when a message cannot go to a missing reader, where it would else
drop it without a word. ZeroMQ's own queues have no bound: the windows of the links bound what is in them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from typing import Any, ClassVar

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from strombus.errors import ConfigurationError
from strombus.ports import bind
from strombus.transport.addresses import chosen_by, own_address
from strombus.transport.base import Keys, Seat, TransportOptions
from strombus.transport.frames import HEADER_SIZE
from strombus.transport.linked import LinkedTransport
from strombus.transport.wire import Arrival, Change, Wire

__all__ = ["ZeroMQTransport", "make_keys"]

_ENVELOPE = 256
"""Bytes that encryption may add to a frame."""


def make_keys() -> Keys:
    """Make the key pairs of one gang."""
    (server_public, server_secret), (public, secret) = zmq.curve_keypair(), zmq.curve_keypair()
    return Keys(server_public, server_secret, public, secret)


class ZeroMQWire(Wire):
    """Sockets with CURVE; see `Wire`."""

    def __init__(self, seat: Seat, options: TransportOptions) -> None:
        super().__init__(seat, options)
        if seat.keys is None:
            raise ConfigurationError("the zeromq transport needs the gang's keys: make them with make_keys()")
        self._keys = seat.keys
        self._ranks = {_identity(rank): rank for rank in range(seat.size)}
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._router: zmq.Socket[bytes] | None = None
        self._dealers: dict[int, zmq.Socket[bytes]] = {}
        self._sources: dict[Any, int | None] = {}
        self._monitors: dict[Any, int | None] = {}
        self._guard: ThreadAuthenticator | None = None
        self._bell = os.pipe()
        os.set_blocking(self._bell[0], False)
        os.set_blocking(self._bell[1], False)
        self._poller.register(self._bell[0], zmq.POLLIN)

    # -- meeting

    def listen(self, *, dialled: bool) -> bytes:
        """Listen, if anybody will dial, and return host and port."""
        host = own_address(self.options, self.seat.towards)
        port = 0
        if dialled:
            self._guard = ThreadAuthenticator(self._context)
            self._guard.start()
            self._guard.configure_curve_callback("*", _OneKey(self._keys.public))
            router = self._router = self._socket(zmq.ROUTER, None)
            router.curve_server = True
            router.curve_publickey, router.curve_secretkey = self._keys.server_public, self._keys.server_secret
            router.setsockopt(zmq.ROUTER_MANDATORY, 1)
            router.setsockopt(zmq.ROUTER_HANDOVER, 1)
            port = self._bind(router, host)
        return json.dumps([host, port]).encode()

    def dial(self, rank: int, address: bytes) -> None:
        """Connect to who listens there."""
        host, port = json.loads(address)
        dealer = self._dealers[rank] = self._socket(zmq.DEALER, rank)
        dealer.curve_serverkey = self._keys.server_public
        dealer.curve_publickey, dealer.curve_secretkey = self._keys.public, self._keys.secret
        dealer.setsockopt(zmq.IDENTITY, _identity(self.seat.rank))
        dealer.connect(f"tcp://{host}:{port}")

    def place(self, address: bytes) -> str:
        """Return host and port."""
        host, port = json.loads(address)
        return f"{host}:{port}" if port else str(host)

    def _socket(self, kind: int, rank: int | None) -> zmq.Socket[bytes]:
        made: zmq.Socket[bytes] = self._context.socket(kind)
        made.setsockopt(zmq.SNDHWM, 0)
        made.setsockopt(zmq.RCVHWM, 0)
        made.setsockopt(zmq.MAXMSGSIZE, self.options.largest_message + HEADER_SIZE + _ENVELOPE)
        made.setsockopt(zmq.LINGER, 0)
        # Not ZeroMQ's own heartbeats: they give a slow reader up, and may end the process when its queue is full.
        # A dead process closes its connections, a dead host is found by TCP, and a process that hangs by its engine.
        made.setsockopt(zmq.TCP_KEEPALIVE, 1)
        made.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 1)
        made.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
        made.setsockopt(zmq.TCP_KEEPALIVE_CNT, max(1, int(self.options.dead_after)))
        made.setsockopt(zmq.RECONNECT_IVL, 50)
        made.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        self._sources[made] = rank
        self._poller.register(made, zmq.POLLIN)
        monitor = made.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._monitors[monitor] = rank
        self._poller.register(monitor, zmq.POLLIN)
        return made

    def _bind(self, router: zmq.Socket[bytes], host: str) -> int:
        try:
            return bind(router, host, self.options.ports)
        except zmq.ZMQError as error:
            said = chosen_by(self.options)
            name = f"member {self.seat.rank}" if self.seat.rank < self.seat.size else "the hub"
            raise ConfigurationError(
                f"{name} cannot listen on {host}: {error}; give an address of this machine as `host`"
                + (f" ({said})" if said else "")
            ) from error

    # -- frames

    def hand_over(self, rank: int, frame: bytes) -> bool:
        """Give a frame to ZeroMQ; False when its reader is not there at the moment."""
        copy = len(frame) < zmq.COPY_THRESHOLD
        dealer = self._dealers.get(rank)
        try:
            if dealer is not None:
                dealer.send(frame, zmq.NOBLOCK, copy=copy)
            elif self._router is not None:
                self._router.send_multipart([_identity(rank), frame], zmq.NOBLOCK, copy=copy)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True

    def take(self, timeout: float) -> list[Arrival]:
        """Return what has come, without copying it."""
        found: list[Arrival] = []
        for ready, _ in self._poller.poll(math.ceil(1000 * timeout)):
            if ready in self._sources:
                self._drain(ready, found)
            elif ready in self._monitors:
                self._drain_events(ready, found)
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._bell[0], 4096)
        return found

    def _drain(self, ready: zmq.Socket[bytes], found: list[Arrival]) -> None:
        rank = self._sources[ready]
        try:
            while True:
                parts = ready.recv_multipart(zmq.NOBLOCK, copy=False)
                found.append((self._ranks.get(parts[0].bytes) if rank is None else rank, parts[-1].buffer))
        except zmq.Again:
            return

    def _drain_events(self, ready: zmq.Socket[bytes], found: list[Arrival]) -> None:
        rank = self._monitors[ready]
        with contextlib.suppress(zmq.Again):
            while True:
                event = recv_monitor_message(ready, zmq.NOBLOCK)
                made = event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
                found.append((rank, Change.MADE if made else Change.LOST))

    def wake(self) -> None:
        """End a wait for the sockets."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._bell[1], b"\0")

    def close(self, linger: float) -> None:
        """Free port and threads."""
        for one in self._sources:
            one.disable_monitor()
            one.close(linger=int(1000 * linger))
        for monitor in self._monitors:
            monitor.close(linger=0)
        if self._guard is not None:
            self._guard.stop()
        self._context.term()
        for end in self._bell:
            os.close(end)


class ZeroMQTransport(LinkedTransport):
    """Messages over ZeroMQ with CURVE; see `Transport`."""

    name: ClassVar[str] = "zeromq"
    wire_class: ClassVar[type[Wire]] = ZeroMQWire


class _OneKey:
    """Lets in who holds the gang's key."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public


def _identity(rank: int) -> bytes:
    return b"member-%d" % rank
