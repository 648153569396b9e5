"""The address that the others are told: as named, in a network, or the one that leads there."""

from __future__ import annotations

import json

import pytest

from strombus.errors import ConfigurationError
from strombus.transport import Seat, TransportOptions, addresses, make_keys, make_transport
from strombus.transport.addresses import own_address


def test_what_is_named_stands_above_what_is_found(monkeypatch):
    monkeypatch.setenv("STROMBUS_HOST", "198.51.100.7")
    assert own_address("203.0.113.9", "127.0.0.0/8") == "203.0.113.9"
    assert own_address(None, "127.0.0.0/8") == "127.0.0.1"
    assert own_address(None, None) == "198.51.100.7"


def test_a_network_without_an_address_lists_those_there_are():
    with pytest.raises(ConfigurationError, match=r"198\.51\.100\.0/24.*has no address in it, only .*127\.0\.0\.1"):
        own_address(None, "198.51.100.0/24")
    with pytest.raises(ValueError, match="network_mask"):
        TransportOptions(network_mask="10.0.0.0.0")


def test_without_a_name_it_is_the_one_that_leads_there(monkeypatch):
    monkeypatch.delenv("STROMBUS_HOST", raising=False)
    assert own_address(None, None, "127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize(
    ("there", "expected"), [(["127.0.0.1", "192.0.2.44"], "192.0.2.44"), (["127.0.0.1"], "127.0.0.1")]
)
def test_without_a_route_it_is_the_first_that_is_not_the_loopback(monkeypatch, there, expected):
    monkeypatch.delenv("STROMBUS_HOST", raising=False)
    monkeypatch.setattr(addresses, "_source_towards", lambda target: None)
    monkeypatch.setattr(addresses, "_addresses", lambda: there)
    assert own_address(None, None, "driver") == expected


def test_the_controllers_address_says_which_interface(monkeypatch):
    """It stands above what the engine knows of the worker."""
    monkeypatch.delenv("STROMBUS_HOST", raising=False)
    monkeypatch.setattr(addresses, "_source_towards", {"10.0.2.4": "10.0.2.9", "192.0.2.7": "192.0.2.9"}.get)
    for controller, expected in [("10.0.2.4", "10.0.2.9"), (None, "192.0.2.9")]:
        options = TransportOptions(controller_address=controller)
        end = make_transport("zeromq", Seat(1, 2, "run", 0, make_keys(), "192.0.2.7"), options)
        assert json.loads(end.address()) == [expected, 0]  # nobody dials the last rank
        end.close(flush=0.0)
