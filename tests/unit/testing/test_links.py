"""The injectors do what they say, and the same again for the same seed; the transport suite cannot be weakened."""

from __future__ import annotations

import socket
import time

import pytest

from strombus.testing.links import CuttingProxy, LinkFaults, faulty
from strombus.testing.transport_suite import TransportSuite
from strombus.transport import Seat, TransportOptions
from strombus.transport.memory import MemoryTransport

FRAMES = [bytes([number]) * 20 for number in range(100)]


def arrivals(faults: LinkFaults, seconds: float = 0.1) -> list[bytes]:
    """Return what comes of `FRAMES` through a wire with faults."""
    kind = faulty(MemoryTransport, faults)
    wires = [kind(Seat(rank, 2, "faults", 0), TransportOptions())._wire for rank in range(2)]
    for wire in wires:
        wire.listen(dialled=True)
    for frame in FRAMES:
        assert wires[0].hand_over(1, frame)
    found, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        found += [bytes(what) for _, what in wires[1].take(0.01)]
    for wire in wires:
        wire.close(0)
    return found


def test_no_fault_changes_nothing() -> None:
    assert arrivals(LinkFaults()) == FRAMES


def test_frames_are_lost_and_doubled_as_the_seed_says() -> None:
    lost = arrivals(LinkFaults(seed=3, lose=0.3))
    assert 50 < len(lost) < 90
    assert lost == [frame for frame in FRAMES if frame in set(lost)]
    assert arrivals(LinkFaults(seed=3, lose=0.3)) == lost != arrivals(LinkFaults(seed=4, lose=0.3))
    assert 110 < len(arrivals(LinkFaults(duplicate=0.3))) < 150


def test_frames_overtake_one_another() -> None:
    found = arrivals(LinkFaults(reorder=0.2))
    assert found != FRAMES
    assert sorted(found) == FRAMES


def test_one_bit_flips() -> None:
    differing = [(a, b) for a, b in zip(FRAMES, arrivals(LinkFaults(corrupt=0.2)), strict=True) if a != b]
    assert 5 < len(differing) < 40
    for before, after in differing:
        assert (int.from_bytes(before, "little") ^ int.from_bytes(after, "little")).bit_count() == 1


def test_frames_are_late_and_keep_their_order() -> None:
    started = time.monotonic()
    assert arrivals(LinkFaults(delay=0.1, jitter=0.05), 0.05) == []
    assert time.monotonic() - started < 0.1
    assert arrivals(LinkFaults(delay=0.05, jitter=0.02), 0.5) == FRAMES


def test_a_proxy_passes_on_until_it_cuts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = CuttingProxy(*server.getsockname())
        with socket.create_connection(("127.0.0.1", proxy.port)) as near:
            far, _ = server.accept()
            with far:
                near.sendall(b"there")
                assert far.recv(10) == b"there"
                far.sendall(b"back")
                assert near.recv(10) == b"back"
                assert proxy.cut() == 2
                near.settimeout(5)
                assert near.recv(10) == b""
                assert far.recv(10) == b""
        proxy.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))


def test_the_suite_has_no_silent_gaps() -> None:
    with pytest.raises(TypeError, match=r"cannot be overridden: test_faults_lose_nothing; use `unsupported`"):
        type("TestMine", (TransportSuite,), {"test_faults_lose_nothing": lambda self: None})
    with pytest.raises(TypeError, match="names no case of TransportSuite: test_speed"):
        type("TestMine", (TransportSuite,), {"unsupported": {"test_speed": "why"}})
