"""The address that the others are told: as named, of an interface, in a network, or the one that leads there."""

from __future__ import annotations

import json

import pytest

from strombus.errors import ConfigurationError
from strombus.transport import Seat, TransportOptions, addresses, make_keys, make_transport
from strombus.transport.addresses import is_here, own_address


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("STROMBUS_HOST", raising=False)


def test_what_is_named_stands_above_what_is_found(monkeypatch):
    monkeypatch.setenv("STROMBUS_HOST", "198.51.100.7")
    named = {"host": "203.0.113.9", "interface": "lo", "network_mask": "127.0.0.0/8"}
    assert own_address(TransportOptions(**named)) == "203.0.113.9"
    assert own_address(TransportOptions(host=lambda: "203.0.113.8")) == "203.0.113.8"
    assert own_address(TransportOptions(interface="lo", network_mask="198.51.100.0/24")) == "127.0.0.1"
    assert own_address(TransportOptions(network_mask="127.0.0.0/8")) == "127.0.0.1"
    assert own_address(TransportOptions(controller_address="127.0.0.1")) == "198.51.100.7"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"network_mask": "198.51.100.0/24"},
            r"198\.51\.100\.0/24.*voidConfiguration.*no address in it, only .*127\.0",
        ),
        ({"interface": "eth77"}, r"interface='eth77': host \S+ has none .* only .*lo \(127\.0\.0\.1"),
        ({"host": lambda: None}, r"must return an address of this host as text, got None"),
    ],
)
def test_what_cannot_be_lists_what_there_is(options, error):
    with pytest.raises(ConfigurationError, match=error):
        own_address(TransportOptions(**options))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"network_mask": "10.0.0.0.0"}, "network_mask"),
        ({"topology": "ring"}, "^TransportOptions: topology = 'ring': .*'mesh'.*'star'$"),
        ({"port": 3}, "^TransportOptions has no option 'port'; known: connect_timeout, .*did you mean ports.$"),
        ({"ports": "40000-"}, "'40000-40100', got '40000-'"),
        ({"ports": "40100-40000"}, "first port and then the last one, got 40100 and 40000"),
        ({"ports": "0-70000"}, "ports"),
        ({"hub": "10.0.0.1"}, "wanted topology='star', got 'auto'"),
    ],
)
def test_what_is_not_written_as_it_must_be(options, error):
    with pytest.raises(ConfigurationError, match=error):
        TransportOptions(**options)


def test_a_range_of_ports_is_a_pair_or_a_text():
    assert TransportOptions(ports="40000-40100").ports == (40000, 40100)
    assert TransportOptions(ports="40000").ports == TransportOptions(ports=[40000, 40000]).ports == (40000, 40000)


def test_without_a_name_it_is_the_one_that_leads_there(monkeypatch):
    assert own_address(TransportOptions(), ["127.0.0.1"]) == "127.0.0.1"
    ways = {"near": "127.0.0.1", "10.0.2.4": "10.0.2.9", "192.0.2.7": "192.0.2.9"}
    monkeypatch.setattr(addresses, "_source_towards", ways.get)
    assert own_address(TransportOptions(), ["nowhere", "near", "10.0.2.4"]) == "10.0.2.9"
    assert own_address(TransportOptions(), ["near"]) == "127.0.0.1"


@pytest.mark.parametrize(
    ("there", "expected"), [(["127.0.0.1", "192.0.2.44"], "192.0.2.44"), (["127.0.0.1"], "127.0.0.1")]
)
def test_without_a_route_it_is_the_first_that_is_not_the_loopback(monkeypatch, there, expected):
    monkeypatch.setattr(addresses, "_source_towards", lambda target: None)
    monkeypatch.setattr(addresses, "_addresses", lambda: there)
    assert own_address(TransportOptions(), ["driver"]) == expected


def test_the_controllers_address_says_which_interface(monkeypatch):
    """It stands above what the engine knows of the worker."""
    monkeypatch.setattr(addresses, "_source_towards", {"10.0.2.4": "10.0.2.9", "192.0.2.7": "192.0.2.9"}.get)
    for controller, expected in [("10.0.2.4", "10.0.2.9"), (None, "192.0.2.9")]:
        options = TransportOptions(controller_address=controller)
        end = make_transport("zeromq", Seat(1, 2, "run", 0, make_keys(), ("192.0.2.7",)), options)
        assert json.loads(end.address()) == [expected, 0]  # nobody dials the last rank
        end.close(flush=0.0)


def test_what_is_this_host():
    assert is_here("127.0.0.1")
    assert is_here("localhost")
    assert not is_here("192.0.2.1")
    assert not is_here("no.such.host.invalid")
