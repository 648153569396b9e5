"""Faults between members: frames that are lost, late, doubled, out of order or damaged, and connections that break.

`faulty` puts faults on the frames of any transport that is made of links, below its numbers and windows; a
`CuttingProxy` stands between two sockets and breaks what passes through it; `kill` takes a member away.
"""

from __future__ import annotations

import contextlib
import heapq
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from strombus.transport.linked import LinkedTransport
from strombus.transport.wire import Arrival, Change, Wire

__all__ = ["CuttingProxy", "LinkFaults", "faulty", "kill"]

_OVERTAKEN = 0.01
"""Seconds that a frame stays behind so that later ones overtake it."""


@dataclass(frozen=True)
class LinkFaults:
    """What happens to the frames on their way to a member; drawn from the seed and the member's rank.

    Parameters
    ----------
    lose, duplicate, reorder, corrupt : float
        Probability of each, for each frame. `corrupt` flips one bit.
    delay, jitter : float
        Seconds that every frame is late, and at most that in addition, drawn evenly. Frames keep their order.
    """

    seed: int = 0
    lose: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0


class _FaultyWire(Wire):
    """A wire on whose way to its member frames suffer `LinkFaults`."""

    def __init__(self, wire: Wire, faults: LinkFaults) -> None:
        super().__init__(wire.seat, wire.options)
        self._wire, self._faults = wire, faults
        self._draw = random.Random(f"{faults.seed}/{wire.seat.rank}")
        self._coming: list[tuple[float, int, Arrival]] = []
        self._count = 0
        self._latest = 0.0

    def hand_over(self, rank: int, frame: bytes) -> bool:
        return self._wire.hand_over(rank, frame)

    def take(self, timeout: float) -> list[Arrival]:
        """Return what is due, after all that is drawn was done to it."""
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            until = min(deadline, self._coming[0][0]) if self._coming else deadline
            arrivals = self._wire.take(max(0.0, until - now))
            for rank, what in arrivals:
                self._admit(rank, what)
            now = time.monotonic()
            found = []
            while self._coming and self._coming[0][0] <= now:
                found.append(heapq.heappop(self._coming)[2])
            if found or not arrivals or now >= deadline:
                return found

    def _admit(self, rank: int | None, what: Any) -> None:
        faults, draw = self._faults, self._draw
        copies = 1
        if not isinstance(what, Change):
            if draw.random() < faults.corrupt:
                what = _flip_a_bit(what, draw)
            copies = 0 if draw.random() < faults.lose else 2 if draw.random() < faults.duplicate else 1
        for _ in range(copies):
            due = max(self._latest, time.monotonic() + faults.delay + faults.jitter * draw.random())
            if draw.random() < faults.reorder:
                due += _OVERTAKEN
            else:
                self._latest = due
            self._count += 1
            heapq.heappush(self._coming, (due, self._count, (rank, what)))

    def listen(self, *, dialled: bool) -> bytes:
        return self._wire.listen(dialled=dialled)

    def dial(self, rank: int, address: bytes) -> None:
        self._wire.dial(rank, address)

    def wake(self) -> None:
        self._wire.wake()

    def close(self, linger: float) -> None:
        self._wire.close(linger)

    def place(self, address: bytes) -> str:
        return self._wire.place(address)


def _flip_a_bit(frame: bytes | memoryview, draw: random.Random) -> bytes:
    damaged = bytearray(frame)
    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def faulty(kind: type[LinkedTransport], faults: LinkFaults) -> type[LinkedTransport]:
    """Return a transport like `kind` whose frames suffer `faults`."""

    class Faulty(kind):  # type: ignore[valid-type,misc]
        name: ClassVar[str] = f"faulty-{kind.name}"

        def _make_wire(self) -> Wire:
            return _FaultyWire(super()._make_wire(), faults)

    return Faulty


def kill(member: LinkedTransport) -> None:
    """Take a member's end away without a word, as the death of its process does."""
    member.abort()


class CuttingProxy:
    """A TCP proxy on the loopback that breaks connections.

    Parameters
    ----------
    host, port : str, int
        Where it passes on to.

    Examples
    --------
    Dial `proxy.port` instead of the member's own, and::

        with proxy.cutting(seed=1, pause=(0.05, 0.3)):
            ...
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._closed = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> int:
        """Break all connections, and lose what waits in the proxy; return how many ends that were."""
        with self._lock:
            found, self._open = self._open, []
        for one in found:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        return len(found)

    @contextlib.contextmanager
    def cutting(self, seed: int, pause: tuple[float, float]) -> Iterator[list[float]]:
        """Cut after pauses drawn from `seed`, evenly within `pause` (seconds); yields the moments of cuts so far."""
        draw, ended, moments = random.Random(seed), threading.Event(), list[float]()

        def run() -> None:
            while not ended.wait(draw.uniform(*pause)):
                if self.cut():
                    moments.append(time.monotonic())

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield moments
        finally:
            ended.set()
            thread.join()

    def close(self) -> None:
        """Cut everything and free the port."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
            except OSError:
                continue
            with self._lock:
                self._open += [near, far]
            for pair in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass_on, args=pair, daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
