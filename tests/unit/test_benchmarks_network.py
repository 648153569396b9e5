"""The network namespaces of the benchmarks: limited, counted, and gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "network.py"


@pytest.fixture(scope="module")
def network():
    spec = importlib.util.spec_from_file_location("benchmarks_network", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def made(network):
    """Return the module where namespaces can be made."""
    if lack := network.missing():
        pytest.skip(lack)
    name = f"sb{os.getpid()}-probe"
    probe = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"this machine makes no network namespaces: {probe.stderr.strip()}")
    subprocess.run(["ip", "netns", "del", name], check=True)
    return network


def standing(wire) -> set[str]:
    listed = {line.split()[0] for line in subprocess.check_output(["ip", "netns"], text=True).splitlines()}
    return listed & {seat.namespace for seat in (*wire.members, wire.hub)}


def test_members_reach_each_other_at_the_limit_and_their_bytes_are_counted(made) -> None:
    with made.namespaces(2, 100) as wire:
        before = made.sent_bytes(wire.members[0])
        rate = made.measure_rate(wire, seconds=0.4)
        sent = made.sent_bytes(wire.members[0]) - before
    assert 30e6 < rate < 110e6
    assert 5e6 <= sent < 5.5e6  # 0.4 s of 100 Mbit/s and the headers


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_namespaces_are_gone_after_an_error(made, error) -> None:
    seen = []

    def fail() -> None:
        with made.namespaces(2, 100) as wire:
            seen.append(wire)
            assert len(standing(wire)) == 3
            raise error

    with pytest.raises(error):
        fail()
    assert not standing(seen[0])


def test_two_wires_stand_side_by_side(made) -> None:
    with made.namespaces(1, 100) as one, made.namespaces(1, 10) as other:
        assert len(standing(one)) == len(standing(other)) == 2


def test_entering_moves_one_thread_alone(made) -> None:
    def devices() -> set[str]:
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
        return {line.split(":")[0].strip() for line in lines}

    here = devices()
    with made.namespaces(1, 100) as wire:
        assert made.inside(wire.members[0], devices) == {"lo", "eth0"}
        assert made.inside(wire.members[0], threading.current_thread) is not threading.current_thread()
    assert devices() == here


def test_what_is_missing_is_named(network, monkeypatch) -> None:
    monkeypatch.setattr(network.shutil, "which", lambda tool: None)
    with pytest.raises(RuntimeError, match="ip and tc"), network.namespaces(1, 100):
        pass
