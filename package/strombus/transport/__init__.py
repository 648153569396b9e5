"""How the members of a gang talk to one another, whatever engine started them."""

from strombus.registry import Registry
from strombus.transport.base import Keys, Message, Seat, Seconds, Transport, TransportFigures, TransportOptions
from strombus.transport.hub import Hub, find_hub, open_hub
from strombus.transport.zeromq import make_keys

__all__ = [
    "Hub",
    "Keys",
    "Message",
    "Seat",
    "Seconds",
    "Transport",
    "TransportFigures",
    "TransportOptions",
    "find_hub",
    "make_keys",
    "make_transport",
    "open_hub",
    "transports",
]

transports = Registry(
    "transport",
    {
        "memory": "strombus.transport.memory:MemoryTransport",
        "zeromq": "strombus.transport.zeromq:ZeroMQTransport",
    },
    group="strombus.transports",
)


def make_transport(kind: str | type[Transport], seat: Seat, options: TransportOptions) -> Transport:
    """Return a member's end of a transport, given by class or name; ConfigurationError lists the names there are."""
    made: Transport = (transports[kind] if isinstance(kind, str) else kind)(seat, options)
    return made
