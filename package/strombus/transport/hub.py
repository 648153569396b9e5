"""The hub of a star: beside the members, on the driver's host, or one of them."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from strombus.errors import ConfigurationError
from strombus.transport.addresses import is_here
from strombus.transport.base import DRIVER, Keys, Seat, Transport, TransportOptions

__all__ = ["Hub", "find_hub", "open_hub"]

_LOOPBACK = "127.0.0.1"
_FLUSH = 1.0
"""Seconds that a hub has to deliver its last frames."""


@dataclass(frozen=True)
class Hub:
    """Where the members find a hub that is none of them.

    Parameters
    ----------
    run_id : str
        Its own, which the members take to speak to one another: that of their gang is made after it.
    """

    run_id: str
    address: bytes


@contextmanager
def open_hub(
    make: Callable[[Seat, TransportOptions], Transport],
    options: TransportOptions,
    size: int,
    keys: Keys | None,
    hosts: Callable[[], Sequence[str]],
) -> Iterator[Hub | None]:
    """Run a star's hub in a thread of this process, the driver's, unless the options want none here.

    Parameters
    ----------
    make : callable
        Makes a transport; `strombus.transport.make_transport` for its name.
    hosts : callable
        Returns the members': the hub listens on the interface that leads there, on the loopback where all are this one,
        unless the options name another.
    """
    here = options.topology == "star" and size > 1 and (options.hub == DRIVER or is_here(options.hub))
    if not here:
        yield None
        return
    if options.hub != DRIVER and options.host is None:
        options = options.model_copy(update={"host": socket.gethostbyname(options.hub)})
    run_id = f"hub-{secrets.token_hex(8)}"
    towards = tuple(hosts())
    if all(map(is_here, towards)):
        towards = (_LOOPBACK,)
    end = make(Seat(size, size, run_id, 0, keys, towards, hub=size), options)
    try:
        yield Hub(run_id, end.serve())
    finally:
        end.close(_FLUSH)


def find_hub(
    seat: Seat, options: TransportOptions, hub: Hub | None, host: str, exchange: Callable[[bytes], list[bytes]]
) -> tuple[Seat, TransportOptions]:
    """Return a member's seat and options with the gang's hub in them, where it has one.

    Parameters
    ----------
    hub : Hub or None
        The one that `open_hub` runs.
    host : str
        By which the engine knows this member's.
    exchange : callable
        See `strombus.executors.base.Member`.

    Raises
    ------
    ConfigurationError
        When no member is on the host that is to have the hub.
    """
    if hub is not None:
        return replace(seat, run_id=hub.run_id, attempt=0, hub=seat.size), options
    if options.topology != "star" or options.hub == DRIVER:
        return seat, options
    here = options.hub == host or is_here(options.hub)
    found = [json.loads(one) for one in exchange(json.dumps([here, host]).encode())]
    ranks = [rank for rank, (there, _) in enumerate(found) if there]
    if not ranks:
        raise ConfigurationError(
            f"hub={options.hub!r} is neither the driver's host nor that of a member: members run on "
            f"{', '.join(sorted({name for _, name in found}))}"
        )
    if ranks[0] == seat.rank and options.host is None:
        options = options.model_copy(update={"host": socket.gethostbyname(options.hub)})
    return replace(seat, hub=ranks[0]), options
