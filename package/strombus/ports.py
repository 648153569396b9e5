"""Which ports are listened on: a range as an option or the environment has it, and the first one of it that is free."""

from __future__ import annotations

import errno
import os
import random
from typing import Any

import zmq

from strombus.errors import ConfigurationError

__all__ = ["bind", "named_ports", "read_ports"]

VARIABLE = "STROMBUS_PORTS"


def read_ports(value: Any) -> Any:
    """Return what "40000-40100" or "40000" says as a first and a last port, anything else as it is; ValueError."""
    if not isinstance(value, str | int):
        return value
    first, dash, last = str(value).strip().partition("-")
    if not (first.strip().isdigit() and (last.strip().isdigit() or not dash)):
        raise ValueError(f"a range of ports is written as '40000-40100', got {value!r}")
    return int(first), int(last if dash else first)


def named_ports() -> tuple[int, int] | None:
    """Return the range that the environment's STROMBUS_PORTS holds, None without it; ConfigurationError."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        low, high = read_ports(text)
    except ValueError as error:
        raise ConfigurationError(f"the environment variable {VARIABLE}: {error}") from None
    if not 1 <= low <= high <= 65535:
        raise ConfigurationError(f"the environment variable {VARIABLE} must lie within 1 to 65535, got {text!r}")
    return low, high


def bind(socket: zmq.Socket[bytes], host: str, ports: tuple[int, int] | None = None) -> int:
    """Listen on a free port of `host`, within `ports` or STROMBUS_PORTS where there is either; return it.

    Raises
    ------
    ConfigurationError
        When all of the range is taken.
    zmq.ZMQError
        When nobody can listen there.
    """
    asked = ports or named_ports()
    if asked is None:
        return int(socket.bind_to_random_port(f"tcp://{host}"))
    low, high = asked
    start = random.randrange(low, high + 1)  # so that those who start together on a host rarely try the same one
    for port in (*range(start, high + 1), *range(low, start)):
        try:
            socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return int(port)
    where = "option `ports`" if ports else f"environment variable {VARIABLE}"
    raise ConfigurationError(
        f"all ports from {low} to {high} ({where}) are taken on {host}: give a wider range; whoever listens on a host "
        "needs one of its own, and so does what else runs there"
    )
