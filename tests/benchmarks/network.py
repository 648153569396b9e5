"""Hosts in one machine: a network namespace for each member, joined by a bridge, with limited egress (Linux, root)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

__all__ = ["Seat", "Wire", "enter", "inside", "loopback", "measure_rate", "missing", "namespaces", "sent_bytes"]

T = TypeVar("T")
_NEW_NET = 0x40000000
_PATIENCE = 60.0


@dataclass(frozen=True)
class Seat:
    """Where a process runs: the namespace (None: the machine's own), its address there and its interface."""

    namespace: str | None
    address: str
    device: str

    @property
    def prefix(self) -> list[str]:
        """What comes before a program's command line so that it runs here."""
        return ["ip", "netns", "exec", self.namespace] if self.namespace else []


@dataclass(frozen=True)
class Wire:
    """The members' seats, the hub's (scheduler and client), and each member's egress in bits/s (None: no limit)."""

    name: str
    members: tuple[Seat, ...]
    hub: Seat
    rate: float | None = None
    congestion_control: str = ""

    def sent(self) -> float:
        """Return the bytes that a member has sent so far by its interface's counter, the mean over the members."""
        if self.rate is None:  # all share one interface
            return sent_bytes(self.hub) / len(self.members)
        return sum(map(sent_bytes, self.members)) / len(self.members)


def loopback(members: int) -> Wire:
    """Return a wire without namespaces or limits."""
    seat = Seat(None, "127.0.0.1", "lo")
    return Wire("loopback", (seat,) * members, seat)


def missing() -> str | None:
    """Say what this machine lacks for network namespaces, or None."""
    tools = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if tools:
        return f"network namespaces need the programs {' and '.join(tools)} (package iproute2)"
    return None if os.geteuid() == 0 else "network namespaces need root"


@contextlib.contextmanager
def namespaces(members: int, mbit: int) -> Iterator[Wire]:
    """Make namespaces whose members send at most `mbit` Mbit/s each; they are gone at the end, whatever happened."""
    if lack := missing():
        raise RuntimeError(f"{lack}; leave this place out with --places loopback")
    stem = f"sb{os.getpid()}-{secrets.token_hex(2)}"
    hub = Seat(f"{stem}-hub", "10.77.0.254", "bridge")
    seats = tuple(Seat(f"{stem}-{number}", f"10.77.0.{number + 1}", "eth0") for number in range(members))
    try:
        _make_hub(hub)
        controls = {_make_member(hub, seat, number, mbit) for number, seat in enumerate(seats)}
        yield Wire(f"{mbit} Mbit/s", seats, hub, mbit * 1e6, "/".join(sorted(controls)))
    finally:
        for seat in (*seats, hub):
            subprocess.run(["ip", "netns", "del", str(seat.namespace)], check=False, capture_output=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)!r} failed: {done.stderr.strip()}")


def _make_hub(hub: Seat) -> None:
    name = str(hub.namespace)
    _run("ip", "netns", "add", name)
    _run("ip", "-n", name, "link", "set", "lo", "up")
    _run("ip", "-n", name, "link", "add", hub.device, "type", "bridge")
    _run("ip", "-n", name, "addr", "add", f"{hub.address}/24", "dev", hub.device)
    _run("ip", "-n", name, "link", "set", hub.device, "up")


def _make_member(hub: Seat, seat: Seat, number: int, mbit: int) -> str:
    """Join a namespace to the hub, limit what it sends, and return its congestion control."""
    name, port = str(seat.namespace), f"port{number}"
    _run("ip", "netns", "add", name)
    _run("ip", "-n", name, "link", "set", "lo", "up")
    _run(*("ip", "-n", str(hub.namespace), "link", "add", port, "type", "veth"), *("peer", "eth0", "netns", name))
    _run("ip", "-n", str(hub.namespace), "link", "set", port, "master", hub.device, "up")
    _run("ip", "-n", name, "addr", "add", f"{seat.address}/24", "dev", "eth0")
    _run("ip", "-n", name, "link", "set", "eth0", "up")
    _run("ip", "-n", name, "route", "add", "default", "via", hub.address)  # as hosts have; it names their address
    burst = "32kb" if mbit <= 100 else "1mb"  # a timer tick's worth at least, or the rate is never reached
    limit = ("rate", f"{mbit}mbit", "burst", burst, "latency", "400ms")
    _run("tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", "tbf", *limit)
    for control in ("cubic", "reno"):  # kernels may keep cubic from namespaces; bbr paces, which a bucket punishes
        with contextlib.suppress(OSError):
            inside(seat, lambda c=control: _set_control(c))
            return control
    return "the kernel's own"


def _set_control(name: str) -> None:
    Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(name)


def enter(seat: Seat) -> None:
    """Move the calling thread, and what it starts, into the seat's namespace."""
    if seat.namespace is None:
        return
    with open(f"/run/netns/{seat.namespace}") as file:
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(file.fileno(), _NEW_NET):
            raise OSError(ctypes.get_errno(), f"cannot enter network namespace {seat.namespace}")


def inside(seat: Seat, function: Callable[[], T]) -> T:
    """Call a function on a thread of its own in the seat's namespace; sockets it makes stay there."""
    future = _begin(seat, function)
    return future.result(_PATIENCE)


def _begin(seat: Seat, function: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            enter(seat)
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def sent_bytes(seat: Seat) -> int:
    """Return how many bytes the seat's interface has sent."""
    lines = inside(seat, lambda: Path("/proc/thread-self/net/dev").read_text()).splitlines()
    fields = next(line.split(":")[1].split() for line in lines if line.strip().startswith(f"{seat.device}:"))
    return int(fields[8])


def measure_rate(wire: Wire, seconds: float = 1.0) -> float:
    """Send from the first member to the second over a plain socket for about `seconds`; return bits/s of payload."""
    total = int((wire.rate or 8e9) * seconds / 8)
    listener = inside(wire.members[1], lambda: socket.create_server((wire.members[1].address, 0)))

    def receive() -> float:
        connection, _ = listener.accept()
        connection.settimeout(_PATIENCE)
        with connection:
            left, started = total, None
            while left > 0:
                left -= len(got := connection.recv(1 << 20))
                started = started or time.perf_counter()
                if not got:
                    raise ConnectionError("the sender stopped early")
            return time.perf_counter() - float(started or 0)

    def send() -> None:
        with socket.create_connection(listener.getsockname(), timeout=_PATIENCE) as connection:
            connection.sendall(bytes(total))

    with listener:
        listener.settimeout(_PATIENCE)
        arrival = _begin(wire.members[1], receive)
        inside(wire.members[0], send)
        return total * 8 / arrival.result(_PATIENCE)
