"""Which of this host's addresses the other members are told."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psutil

from strombus.errors import ConfigurationError

if TYPE_CHECKING:
    from strombus.transport.base import TransportOptions

__all__ = ["chosen_by", "is_here", "own_address"]

_OUTWARDS = "192.0.2.1"
"""An address for documentation, which the default route leads to; nothing is sent."""


def own_address(options: TransportOptions, towards: Sequence[str] = ()) -> str:
    """Return this host's address as the others reach it.

    `host` stands above `interface`, that above `network_mask`, that above the environment's STROMBUS_HOST. Without any
    it is the address of the interface that leads to `controller_address`, to one of `towards`, or outwards; without a
    route the first address that is not the loopback's, and that one on a host which has no other.

    Parameters
    ----------
    towards : sequence of str
        Hosts that the others surely reach. One that the loopback leads to counts where all are such.

    Raises
    ------
    ConfigurationError
        When this host has no such interface, or no address in `network_mask`; it lists those there are.
    """
    if options.host is not None:
        return _named(options)
    if options.interface is not None:
        return _address_of(options.interface)
    if options.network_mask is not None:
        return _address_in(options.network_mask)
    if named := os.environ.get("STROMBUS_HOST"):
        return named
    if options.controller_address and (found := _source_towards(options.controller_address)):
        return found
    inner = None
    for found in filter(None, map(_source_towards, towards)):
        if not _is_loopback(found):
            return found
        inner = found
    if inner:
        return inner
    if found := _source_towards(_OUTWARDS):
        return found
    outer = [one for one in _addresses() if not _is_loopback(one)]
    return outer[0] if outer else "127.0.0.1"


def chosen_by(options: TransportOptions) -> str:
    """Return what, of the options, says which address it is, as an error names it; "" where none does."""
    if options.host is not None:
        return "option `host`"
    if options.interface is not None:
        return f"interface={options.interface!r}"
    if options.network_mask is not None:
        return f"network_mask={options.network_mask!r}, in DL4J's files networkMask of voidConfiguration"
    if options.controller_address is not None:
        return f"controller_address={options.controller_address!r}, in DL4J's files that of voidConfiguration"
    return ""


def is_here(host: str) -> bool:
    """Say whether a name or address is one of this host's."""
    if host == socket.gethostname():
        return True
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return False
    return _is_loopback(address) or address in _addresses()


def _named(options: TransportOptions) -> str:
    host = options.host() if callable(options.host) else options.host
    if not isinstance(host, str) or not host:
        raise ConfigurationError(f"host={options.host!r} must return an address of this host as text, got {host!r}")
    return host


def _address_of(interface: str) -> str:
    found = _interfaces()
    if interface in found:
        return found[interface][0]
    listed = ", ".join(f"{name} ({', '.join(addresses)})" for name, addresses in found.items())
    raise ConfigurationError(
        f"interface={interface!r}: host {socket.gethostname()} has none of that name that is up with an IPv4 address, "
        f"only {listed}"
    )


def _address_in(network_mask: str) -> str:
    network = ipaddress.IPv4Network(network_mask, strict=False)
    addresses = _addresses()
    for one in addresses:
        if ipaddress.ip_address(one) in network:
            return one
    raise ConfigurationError(
        f"network_mask={network_mask!r} (in DL4J's files networkMask of voidConfiguration): host "
        f"{socket.gethostname()} has no address in it, only {', '.join(addresses)}; leave it out, or give the network "
        "that the workers are in"
    )


def _interfaces() -> dict[str, list[str]]:
    """Return the IPv4 addresses of the interfaces that are up."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = {
        name: [one.address for one in addresses if one.family == socket.AF_INET]
        for name, addresses in sorted(psutil.net_if_addrs().items())
    }
    return {name: addresses for name, addresses in found.items() if name in up and addresses}


def _addresses() -> list[str]:
    return [address for addresses in _interfaces().values() for address in addresses]


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _source_towards(target: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
