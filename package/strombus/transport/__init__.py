"""How the members of a gang talk to one another, whatever engine started them."""

from strombus.registry import Registry
from strombus.transport.base import Keys, Message, Seat, Transport, TransportFigures, TransportOptions
from strombus.transport.zeromq import make_keys

__all__ = [
    "Keys",
    "Message",
    "Seat",
    "Transport",
    "TransportFigures",
    "TransportOptions",
    "make_keys",
    "make_transport",
    "transports",
]

transports = Registry(
    "transport",
    {"zeromq": "strombus.transport.zeromq:ZeroMQTransport"},
    group="strombus.transports",
)


def make_transport(name: str, seat: Seat, options: TransportOptions) -> Transport:
    """Return a member's end of the transport called `name`; ConfigurationError lists those that there are."""
    made: Transport = transports[name](seat, options)
    return made
