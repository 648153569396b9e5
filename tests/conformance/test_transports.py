"""The transports keep their contract, in every shape of gang."""

from __future__ import annotations

from strombus.testing.transport_suite import TransportSuite
from strombus.transport.memory import MemoryTransport
from strombus.transport.zeromq import ZeroMQTransport


class TestMemory(TransportSuite):
    transport = MemoryTransport


class TestMemoryTree(TransportSuite):
    transport = MemoryTransport
    members = 12
    options = TransportSuite.options.model_copy(update={"topology": "tree"})


class TestZeroMQ(TransportSuite):
    transport = ZeroMQTransport


class TestZeroMQStar(TransportSuite):
    """The hub is no member."""

    transport = ZeroMQTransport
    options = TransportSuite.options.model_copy(update={"topology": "star"})


class TestZeroMQTree(TransportSuite):
    """Twelve members: rank 1 passes on to 9, 10 and 11."""

    transport = ZeroMQTransport
    members = 12
    options = TransportSuite.options.model_copy(update={"topology": "tree"})
