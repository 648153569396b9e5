"""Which of this host's addresses the other members are told."""

from __future__ import annotations

import ipaddress
import os
import socket

import psutil

from strombus.errors import ConfigurationError

__all__ = ["own_address"]

_OUTWARDS = "192.0.2.1"
"""An address for documentation, which the default route leads to; nothing is sent."""


def own_address(host: str | None, network_mask: str | None, towards: str | None = None) -> str:
    """Return this host's address as the others reach it.

    `host` stands above `network_mask`, that above the environment's STROMBUS_HOST. Without any it is the address of
    the interface that leads to `towards`, or outwards where that is None or leads nowhere; without a route the
    first address that is not the loopback's, and that one on a host which has no other.

    Parameters
    ----------
    network_mask : str, optional
        A network such as "10.0.0.0/8" that the address must lie in.
    towards : str, optional
        A host that the others surely reach.

    Raises
    ------
    ConfigurationError
        When no address of this host lies in `network_mask`; it lists those there are.
    """
    if host is not None:
        return host
    if network_mask is not None:
        return _address_in(network_mask)
    if named := os.environ.get("STROMBUS_HOST"):
        return named
    for target in filter(None, (towards, _OUTWARDS)):
        if found := _source_towards(target):
            return found
    outer = [one for one in _addresses() if not ipaddress.ip_address(one).is_loopback]
    return outer[0] if outer else "127.0.0.1"


def _address_in(network_mask: str) -> str:
    network = ipaddress.IPv4Network(network_mask, strict=False)
    addresses = _addresses()
    for one in addresses:
        if ipaddress.ip_address(one) in network:
            return one
    raise ConfigurationError(
        f"network_mask={network_mask!r}: host {socket.gethostname()} has no address in it, only {', '.join(addresses)}"
    )


def _addresses() -> list[str]:
    """Return the IPv4 addresses of the interfaces that are up."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = psutil.net_if_addrs()
    return [one.address for name in sorted(found) if name in up for one in found[name] if one.family == socket.AF_INET]


def _source_towards(target: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
