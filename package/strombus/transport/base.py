"""The interface of a transport: messages from each member of a gang to all others, each once and in order."""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from strombus.documents import explain
from strombus.errors import ConfigurationError
from strombus.ports import read_ports
from strombus.transport.topology import Topology

__all__ = ["Keys", "Message", "Seat", "Transport", "TransportFigures", "TransportOptions"]

Port = Annotated[int, Field(ge=1, le=2**16 - 1)]
Seconds = Annotated[float, Field(gt=0, le=1e8)]
"""Of a wait; the system's own limit is not far above."""

DRIVER = "driver"
"""Where a star's hub is, unless a host is named."""

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
    """A member's place in its gang; see `strombus.executors.base.Member`.

    Parameters
    ----------
    keys : Keys or None
        Made for the gang; a transport within one process needs none.
    towards : tuple of str
        Hosts that all members reach, as far as known; see `strombus.transport.addresses.own_address`.
    hub : int
        The rank of a star's hub; `size` where that is no member (see `strombus.transport.hub`), and of its own seat.
    """

    rank: int
    size: int
    run_id: str
    attempt: int
    keys: Keys | None = None
    towards: tuple[str, ...] = ()
    hub: int = 0


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
    host : str or callable, optional
        This member's address as the others reach it; or a function without arguments that returns it, and is called
        where it is asked for: on each worker, for a star's hub where that is.
    interface : str, optional
        Instead, the name of the network interface that has it, such as "eth1".
    network_mask : str, optional
        Instead, a network such as "10.0.0.0/8" in which each member has an address (DL4J: ``networkMask``). Without
        any it is the environment's STROMBUS_HOST, else the address of the interface that leads outwards.
    controller_address : str, optional
        An address that all members reach, such as the driver's (DL4J: ``controllerAddress``). Without those above
        each listens on the interface that leads there; on that very host, at the address itself.
    ports : (int, int) or str, optional
        First and last port to listen on, or both as "40000-40100"; by default the environment's STROMBUS_PORTS, and
        without it whatever is free.
    connect_timeout, send_timeout : float
        Seconds to meet the others, and to hand over one message to a slow reader.
    dead_after : float
        Seconds without a connection after which a member is lost.
    queue, window : int
        Messages, and bytes of them, that may wait for one reader; they are kept until it has them, and go out
        again when a connection breaks.
    largest_message : int
        Bytes.
    topology : {"auto", "mesh", "tree", "star"}
        Who is connected to whom. "mesh": all with all. "tree": members pass on what eight others below and
        one above them say. "star": all through one hub, whose port is then the only one. "auto" is a mesh of up to 16
        members and a tree of more (DL4J: ``meshBuildMode``).
    hub : str
        Where a star's hub is: "driver", or the name or address of a host: the driver's, or that of a member, which then
        is the hub.

    Raises
    ------
    ConfigurationError
        For a value that cannot work, naming option and value.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )

    host: str | Callable[[], str] | None = None
    interface: str | None = None
    network_mask: str | None = None
    controller_address: str | None = None
    ports: tuple[Port, Port] | None = None
    connect_timeout: Seconds = 30.0
    send_timeout: Seconds = 30.0
    dead_after: Seconds = 5.0
    queue: int = Field(default=64, ge=1)
    window: int = Field(default=2**26, ge=1)
    largest_message: int = Field(default=2**30, ge=2**10)
    topology: Topology = "auto"
    hub: str = DRIVER

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            fields = type(self).model_fields
            names = {name: name for name in sorted(fields)}
            spelt = {field.alias: name for name, field in fields.items() if field.alias}
            raise ConfigurationError(explain(error, type(self).__name__, names | spelt)) from None

    @field_validator("ports", mode="before")
    @classmethod
    def _a_range(cls, value: Any) -> Any:
        return read_ports(value)

    @field_validator("ports")
    @classmethod
    def _first_and_last(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError(f"wanted the first port and then the last one, got {value[0]} and {value[1]}")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.hub != DRIVER and self.topology != "star":
            raise ValueError(f"hub={self.hub!r} is that of a star: wanted topology='star', got {self.topology!r}")
        return self

    def check_written(self) -> None:
        """Raise ConfigurationError where an option has no written form."""
        if callable(self.host):
            raise ConfigurationError(
                "host= is a function, which cannot be written: give an address, `interface` or `network_mask` instead, "
                "or give it anew after reading"
            )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():  # a function's own text differs from run to run
            named = name == "host" and callable(value)
            yield name, f"{value.__module__}:{getattr(value, '__qualname__', value)}" if named else value

    @field_validator("network_mask")
    @classmethod
    def _a_network(cls, value: str | None) -> str | None:
        if value is not None:
            ipaddress.IPv4Network(value, strict=False)
        return value


class Transport(ABC):
    """One member's end; used by one thread.

    Parameters
    ----------
    seat : Seat
    options : TransportOptions

    Attributes
    ----------
    stopping : callable
        Asked in every wait; once it says True, the wait ends with `ExecutorError`. Its user sets it.
    lost : dict of int to str
        After `tolerate`, who was lost, and how.
    """

    name: ClassVar[str]
    tolerates: ClassVar[bool] = False
    """Whether a member can go on without those that are lost: `tolerate` and `forget` work where all have links of
    their own to all."""

    def __init__(self, seat: Seat, options: TransportOptions) -> None:
        self.seat, self.options = seat, options
        self.figures = TransportFigures()
        self.stopping: Callable[[], bool] = lambda: False
        self.lost: dict[int, str] = {}

    @abstractmethod
    def address(self) -> bytes:
        """Open this end, and return what the others need to reach it."""

    @abstractmethod
    def connect(self, addresses: Sequence[bytes]) -> None:
        """Meet the others, whose addresses come in rank order; PeerLost names who did not come.

        The address of a hub that is no member comes last.
        """

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

    def tolerate(self) -> None:
        """From now on note in `lost` who is lost, where `send` and `receive` would raise PeerLost; for `tolerates`."""
        raise ConfigurationError(f"the transport {self.name} does not go on without a member that is lost")

    def serve(self) -> bytes:
        """Open this end as the hub of a star, of whom no member is the hub, and return its address.

        From then on it passes on, in a thread, what those who come say to one another, until `close`.
        """
        raise ConfigurationError(
            f"the transport {self.name} has no hub but a member: give the host of one as `hub`, or another topology"
        )

    def forget(self, rank: int) -> None:
        """Take nothing from a member any more and drop what waits for it; after `tolerate`."""

    @abstractmethod
    def close(self, flush: float = 5.0) -> None:
        """Deliver what waits, within `flush` seconds, and free everything; a second call does nothing."""
