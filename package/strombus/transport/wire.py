"""What carries frames from a member to its neighbours and may lose some; `LinkedTransport` mends that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any

from strombus.transport.base import Seat, TransportOptions

__all__ = ["Arrival", "Change", "Wire"]


class Change(Enum):
    """What happened to a connection."""

    MADE = "made"
    LOST = "lost"


Arrival = tuple[int | None, Any]
"""Who it comes from (None where that is not known), and a frame's bytes or a `Change`."""


class Wire(ABC):
    """One member's connections; used by one thread at a time, `wake` apart.

    Parameters
    ----------
    seat : Seat
    options : TransportOptions
    """

    def __init__(self, seat: Seat, options: TransportOptions) -> None:
        self.seat, self.options = seat, options

    @abstractmethod
    def listen(self, *, dialled: bool) -> bytes:
        """Open this end and return its address; `dialled` says whether anybody will dial it."""

    @abstractmethod
    def dial(self, rank: int, address: bytes) -> None:
        """Connect to a neighbour, again and again until `close`; `take` tells when it is done."""

    @abstractmethod
    def hand_over(self, rank: int, frame: bytes) -> bool:
        """Take a frame for a neighbour without waiting; False when there is no connection to it."""

    @abstractmethod
    def take(self, timeout: float) -> list[Arrival]:
        """Return what has come, waiting at most `timeout` seconds, or until `wake`, for the first of it."""

    @abstractmethod
    def wake(self) -> None:
        """End a `take` that waits in another thread, or else the next one."""

    @abstractmethod
    def close(self, linger: float) -> None:
        """Free everything; what was handed over may go out for `linger` more seconds."""

    @abstractmethod
    def place(self, address: bytes) -> str:
        """Return an address as an error shows it."""
