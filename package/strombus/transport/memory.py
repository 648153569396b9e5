"""Members that are threads of one process; for tests, and to try things without a network."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import ClassVar
from weakref import WeakValueDictionary

from strombus.errors import ConfigurationError
from strombus.transport.base import Seat, TransportOptions
from strombus.transport.linked import LinkedTransport
from strombus.transport.wire import Arrival, Change, Wire

__all__ = ["MemoryTransport"]


class _Mailbox:
    """What came for one member; the senders' windows bound it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._mail: deque[Arrival] = deque()
        self._woken = False

    def put(self, arrival: Arrival) -> None:
        with self._changed:
            self._mail.append(arrival)
            self._changed.notify()

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify()

    def take(self, timeout: float) -> list[Arrival]:
        with self._changed:
            if timeout > 0:
                self._changed.wait_for(lambda: self._mail or self._woken, timeout)
            found, self._woken = list(self._mail), False
            self._mail.clear()
            return found


class _Hub:
    """The mailboxes of one gang."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)
        self.boxes: dict[int, _Mailbox] = {}


# The one thing that members of a process share without being handed it: where each gang's hub is. Members hold
# their hub, and nothing else does.
_HUBS: WeakValueDictionary[tuple[str, int, bytes], _Hub] = WeakValueDictionary()
_HUBS_LOCK = threading.Lock()


class MemoryWire(Wire):
    """Mailboxes in this process; see `Wire`."""

    def __init__(self, seat: Seat, options: TransportOptions) -> None:
        super().__init__(seat, options)
        gang = (seat.run_id, seat.attempt, seat.keys.public if seat.keys else b"")
        self._box = _Mailbox()
        with _HUBS_LOCK:
            self._hub = _HUBS.setdefault(gang, _Hub())

    def listen(self, *, dialled: bool) -> bytes:
        """Open the mailbox; anybody of the gang may use it."""
        with _HUBS_LOCK:
            if self.seat.rank in self._hub.boxes:
                raise ConfigurationError(
                    f"run {self.seat.run_id!r} has a member {self.seat.rank} in this process already"
                )
            self._hub.boxes[self.seat.rank] = self._box
        return json.dumps([socket.gethostname(), os.getpid(), self._hub.token]).encode()

    def dial(self, rank: int, address: bytes) -> None:
        """Note the connection, which is there already."""
        self._box.put((rank, Change.MADE))

    def hand_over(self, rank: int, frame: bytes) -> bool:
        """Put a frame into a neighbour's mailbox."""
        box = self._hub.boxes.get(rank)
        if box is not None:
            box.put((self.seat.rank, frame))
        return box is not None

    def take(self, timeout: float) -> list[Arrival]:
        """Empty the mailbox."""
        return self._box.take(timeout)

    def wake(self) -> None:
        """End a wait for the mailbox."""
        self._box.wake()

    def close(self, linger: float) -> None:
        """Take the mailbox away, and tell the others."""
        with _HUBS_LOCK:
            if self._hub.boxes.get(self.seat.rank) is self._box:
                del self._hub.boxes[self.seat.rank]
                for box in self._hub.boxes.values():
                    box.put((self.seat.rank, Change.LOST))

    def place(self, address: bytes) -> str:
        """Return host and process."""
        host, process, _ = json.loads(address)
        return f"process {process} of {host}"


class MemoryTransport(LinkedTransport):
    """Messages between threads of one process; see `Transport`."""

    name: ClassVar[str] = "memory"
    wire_class: ClassVar[type[Wire]] = MemoryWire

    def connect(self, addresses: Sequence[bytes]) -> None:
        """Meet the others; where one is in another process, each member raises ConfigurationError at once."""
        own = addresses[self.seat.rank]
        for rank, address in enumerate(addresses):
            if json.loads(address)[2] != json.loads(own)[2]:
                raise ConfigurationError(
                    f"the memory transport joins threads of one process: member {self.seat.rank} is in "
                    f"{self._wire.place(own)}, member {rank} in {self._wire.place(address)}; take transport='zeromq' "
                    "where members are processes"
                )
        super().connect(addresses)
