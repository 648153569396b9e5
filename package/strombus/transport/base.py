"""The interface of a transport: messages from each member of a gang to all others, each once and in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = ["Keys", "Message", "Seat", "Transport", "TransportFigures", "TransportOptions"]

Payload = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Message:
    """What a member sent.

    Parameters
    ----------
    kind, step : int
        As the sender gave them.
    origin : int
        The sender's rank.
    payload : bytes or memoryview
    """

    kind: int
    origin: int
    step: int
    payload: bytes | memoryview


@dataclass(frozen=True)
class Keys:
    """What lets a member in: key pairs made for one gang, handed out through its engine."""

    server_public: bytes
    server_secret: bytes = field(repr=False)
    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Seat:
    """A member's place in its gang; see `strombus.executors.base.Member`."""

    rank: int
    size: int
    run_id: str
    attempt: int
    keys: Keys | None = None


@dataclass
class TransportFigures:
    """What went over the wire so far, headers included."""

    bytes_sent: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    messages_received: int = 0


class TransportOptions(BaseModel):
    """Addresses, ports and deadlines.

    Parameters
    ----------
    host : str, optional
        This member's address as the others reach it; else the environment's STROMBUS_HOST, else the address of
        the interface that leads outwards.
    ports : (int, int), optional
        First and last port to listen on; by default whatever is free.
    connect_timeout, send_timeout : float
        Seconds to meet the others, and to hand over one message to a slow reader.
    dead_after : float
        Seconds without a connection after which a member is lost.
    queue : int
        Messages that may wait for one reader.
    largest_message : int
        Bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    host: str | None = None
    ports: tuple[int, int] | None = None
    connect_timeout: float = Field(default=30.0, gt=0)
    send_timeout: float = Field(default=30.0, gt=0)
    dead_after: float = Field(default=5.0, gt=0)
    queue: int = Field(default=64, ge=1)
    largest_message: int = Field(default=2**30, ge=2**10)


class Transport(ABC):
    """One member's end; used by one thread.

    Parameters
    ----------
    seat : Seat
    options : TransportOptions
    """

    name: ClassVar[str]

    def __init__(self, seat: Seat, options: TransportOptions) -> None:
        self.seat, self.options = seat, options
        self.figures = TransportFigures()

    @abstractmethod
    def address(self) -> bytes:
        """Open this end, and return what the others need to reach it."""

    @abstractmethod
    def connect(self, addresses: Sequence[bytes]) -> None:
        """Meet the others, whose addresses come in rank order; PeerLost names who did not come."""

    @abstractmethod
    def send(self, kind: int, step: int, payload: Payload, *, to: int | None = None) -> None:
        """Send to all others, or to one; the payload may change once this has returned.

        Raises
        ------
        PeerLost
            When a reader takes nothing for `send_timeout` seconds, or is gone.
        """

    @abstractmethod
    def receive(self, timeout: float = 0.0) -> list[Message]:
        """Return what has come, waiting at most `timeout` seconds for the first message.

        Raises
        ------
        PeerLost
            When a member is gone, or a message of it is.
        """

    @abstractmethod
    def close(self, flush: float = 5.0) -> None:
        """Deliver what waits, within `flush` seconds, and free everything; a second call does nothing."""
