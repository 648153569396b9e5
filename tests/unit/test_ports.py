"""Where members and the driver listen: any free port, or the first free one of a range."""

from __future__ import annotations

import contextlib
import socket

import pytest
import zmq

from strombus.errors import ConfigurationError
from strombus.executors.rendezvous import RendezvousServer
from strombus.ports import bind, named_ports


@pytest.fixture
def five_ports():
    """Return the first of five ports that nobody listens on."""
    for low in range(41000, 60000, 5):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(low, low + 5):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return low
    pytest.skip("no five free ports side by side on this machine")


@pytest.fixture
def sockets():
    context = zmq.Context()
    made = [context.socket(zmq.ROUTER) for _ in range(6)]
    yield made
    context.destroy(linger=0)


def test_each_takes_a_free_port_of_the_range_until_there_is_none(five_ports, sockets):
    low, high = five_ports, five_ports + 4
    found = [bind(one, "127.0.0.1", (low, high)) for one in sockets[:5]]
    assert sorted(found) == list(range(low, high + 1))
    error = rf"all ports from {low} to {high} \(option `ports`\) are taken on 127\.0\.0\.1"
    with pytest.raises(ConfigurationError, match=error):
        bind(sockets[5], "127.0.0.1", (low, high))


def test_the_environment_bounds_what_the_driver_listens_on(five_ports, monkeypatch):
    monkeypatch.setenv("STROMBUS_PORTS", f"{five_ports}-{five_ports + 1}")
    with RendezvousServer(1, "one", 0, 1.0) as one, RendezvousServer(1, "two", 0, 1.0) as two:
        taken = {int(server.ticket(0).address.rpartition(":")[2]) for server in (one, two)}
        assert taken == {five_ports, five_ports + 1}
        with (
            pytest.raises(ConfigurationError, match=rf"{five_ports} to .*variable STROMBUS_PORTS\) are taken"),
            RendezvousServer(1, "three", 0, 1.0),
        ):
            pass


@pytest.mark.parametrize("text", ["40000:40100", "0-10", "500-400", "70000"])
def test_a_range_in_the_environment_that_is_none(monkeypatch, text):
    monkeypatch.setenv("STROMBUS_PORTS", text)
    with pytest.raises(ConfigurationError, match="environment variable STROMBUS_PORTS"):
        named_ports()
