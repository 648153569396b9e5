"""Sockets between members with a listener in between, who keeps all that goes over the loopback."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import ClassVar

from strombus.testing.links import CuttingProxy
from strombus.transport.zeromq import ZeroMQTransport, ZeroMQWire

FOLDER = "STROMBUS_TEST_RECORDINGS"
"""The environment's variable that names where recordings lie."""


class RecordingProxy(CuttingProxy):
    """Passes on what comes, and appends it to a file."""

    def __init__(self, host, port, file):
        self._file = open(file, "ab", buffering=0)  # noqa: SIM115 - open as long as the proxy
        super().__init__(host, port)

    def _pass_on(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                self._file.write(data)
                sink.sendall(data)


class RecordedWire(ZeroMQWire):
    """Sockets that others reach through a `RecordingProxy` only."""

    _proxy = None

    def listen(self, *, dialled):
        host, port = json.loads(super().listen(dialled=dialled))
        if not port:
            return json.dumps([host, port]).encode()
        file = Path(os.environ[FOLDER]) / f"{self.seat.run_id}-{self.seat.rank}"
        self._proxy = RecordingProxy(host, port, file)
        return json.dumps(["127.0.0.1", self._proxy.port]).encode()

    def close(self, linger):
        super().close(linger)
        if self._proxy is not None:
            self._proxy.close()


class RecordedTransport(ZeroMQTransport):
    """The library's own sockets, listened to."""

    name: ClassVar[str] = "recorded"
    wire_class: ClassVar = RecordedWire


def pieces(data, size=16):
    """Return all pieces of that size, one after the other; whoever sends them in the clear sends one of them whole."""
    return {bytes(data[start : start + size]) for start in range(0, len(data) - size + 1, size)}


def found_in(recording, data, size=16):
    """Return how many of the pieces of `data` are somewhere in a recording."""
    wanted = pieces(data, size)
    return sum(recording[start : start + size] in wanted for start in range(len(recording) - size + 1))
