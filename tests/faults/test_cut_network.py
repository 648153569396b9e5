"""A worker's network is cut, or narrow: a network namespace for each worker, and the driver in one of its own.

Only ``tox -e soak`` runs this (STROMBUS_FAULTS): clusters of programs in namespaces take a while to start.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.fault_matrix import Row, seeds
from helpers.programs import Programs

from benchmarks import network

TESTS = Path(__file__).parents[1]
PATIENCE = 150.0
CUTS = (4.0, 15.0, 40.0)
"""Seconds: what nobody notices, what ends a member's lease, what ends Dask's connections (30 s)."""

pytestmark = pytest.mark.skipif(
    not seeds(), reason="cutting networks takes minutes: tox -e soak, or STROMBUS_FAULTS=0:3"
)


@dataclass(frozen=True)
class Cluster:
    """Programs in namespaces, and what a driver program needs to reach them."""

    wire: network.Wire
    programs: Programs
    address: str
    env: dict[str, str]

    def cut(self, rank: int, seconds: float) -> None:
        """Take a worker's interface down for a while."""
        self._link(rank, "down")
        try:
            time.sleep(seconds)
        finally:
            self._link(rank, "up")

    def _link(self, rank: int, state: str) -> None:
        command = ["ip", "-n", str(self.wire.hub.namespace), "link", "set", f"port{rank}", state]
        subprocess.run(command, check=True, capture_output=True)

    def narrow(self, rank: int, rate: str) -> None:
        """Limit what a worker sends."""
        limit = ["rate", rate, "burst", "32kb", "latency", "400ms"]
        command = ["tc", "-n", str(self.wire.members[rank].namespace), "qdisc", "replace", "dev", "eth0", "root", "tbf"]
        subprocess.run([*command, *limit], check=True, capture_output=True)


@pytest.fixture(scope="module")
def wire():
    if lack := network.missing():
        pytest.skip(lack)
    try:
        with network.namespaces(2, 1000) as made:
            yield made
    except RuntimeError as error:
        pytest.skip(f"this machine makes no network namespaces: {error}")


@pytest.fixture(scope="module")
def dask_cluster_of_hosts(wire, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dask")
    programs, dask, file = Programs(folder), [sys.executable, "-m", "dask"], str(folder / "scheduler.json")
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    try:
        common = ["--no-dashboard", "--scheduler-file", file]
        scheduler = [*wire.hub.prefix, *dask, "scheduler", "--host", wire.hub.address, "--port", "0", *common]
        programs.launch("scheduler", scheduler, env)
        for number, seat in enumerate(wire.members):
            options = ["--host", seat.address, "--nthreads", "1", "--local-directory", str(folder), *common]
            programs.launch(f"worker-{number}", [*seat.prefix, *dask, "worker", *options], env)
        address = programs.wait_for("scheduler", r"Scheduler at:\s+(tcp://[\d.]+:\d+)")
        for number in range(len(wire.members)):
            programs.wait_for(f"worker-{number}", r"Registered to:")
        yield Cluster(wire, programs, address, env)
    finally:
        programs.close(grace=10.0)


@contextlib.contextmanager
def driver(cluster, folder, master):
    """Run a fit as a program on the hub."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(TESTS / "helpers" / "driver.py"), cluster.address, str(folder), master]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*cluster.wire.hub.prefix, *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=cluster.env
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)


def end(process, folder):
    """Wait for a program's end; return the network's bytes and the examples."""
    assert process.wait(PATIENCE) == 0, (folder / "log").read_text()[-3000:]
    return (folder / "one" / "network.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(dask_cluster_of_hosts, tmp_path_factory):
    @functools.cache
    def make(master):
        folder = tmp_path_factory.mktemp("undisturbed")
        with driver(dask_cluster_of_hosts, folder, master) as process:
            return end(process, folder)

    return make


def wait_for_a_checkpoint(process, folder):
    deadline = time.monotonic() + PATIENCE
    while len(list((folder / "one").glob("step-*/manifest.json"))) < 2:
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ["cut", "narrow"])
@pytest.mark.parametrize("master", ["averaging", "sharing"])
@pytest.mark.dask
@pytest.mark.parametrize("seed", seeds())
def test_a_network(dask_cluster_of_hosts, tmp_path, undisturbed, fault_rows, seed, master, fault):
    """Both workers come back, so that the parameters are those of a fit that nobody disturbed."""
    cluster, expected = dask_cluster_of_hosts, undisturbed(master)
    draw = random.Random(f"{seed} {master} {fault}")
    rank, seconds, moment = draw.randrange(2), draw.choice(CUTS), draw.uniform(0, 0.5)
    phase = f"{seconds:.0f} s" if fault == "cut" else "128 kbit/s"
    started, outcome = time.monotonic(), "NOT AS PROMISED"
    try:
        with driver(cluster, tmp_path, master) as process:
            wait_for_a_checkpoint(process, tmp_path)
            time.sleep(moment)
            assert process.poll() is None
            if fault == "cut":
                cluster.cut(rank, seconds)
            else:
                cluster.narrow(rank, "128kbit")
            assert end(process, tmp_path) == expected
        outcome = "survived"
    finally:
        cluster.narrow(rank, "1000mbit")
        fault_rows.append(Row(fault, phase, master, "dask", outcome, "", time.monotonic() - started))
