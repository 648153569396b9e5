"""Workers that reach nothing but the scheduler and one port of the driver's host: network namespaces and filters.

Run as a program, with the scheduler's address and a folder, this is the driver.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.networks import make_data, make_network
from helpers.programs import Programs

import strombus as sb
from benchmarks import network

TESTS = Path(__file__).parents[1]
HUB, WORKER = 40_000, 9_000
"""Ports: of the star's hub, and on which Dask's workers listen to the scheduler."""


def fit(backend, **options):
    """Train two epochs; return the parameters."""
    master = sb.SharedTrainingMaster(
        workers=2,
        batch_size_per_worker=4,
        max_staleness=0,
        rng_seed=1,
        transport_options=sb.TransportOptions(connect_timeout=2.0, **options),
    )
    trained = make_network("adam")
    with sb.Trainer(trained, master, backend=backend) as trainer:
        trainer.fit(make_data(70), epochs=2, validation=make_data(20, 1), progress=False)
    return trained.state().parameters


def drive(address, folder):
    """Train before and after the filters are there: a mesh, and then a star; keep both networks' parameters."""
    np.save(Path(folder) / "mesh.npy", fit(address))
    print("meshed", flush=True)
    assert input() == "filtered"
    try:
        fit(address)
    except sb.errors.GangError as error:
        print(f"refused: {error}", flush=True)
    np.save(Path(folder) / "star.npy", fit(address, topology="star", ports=f"{HUB}-{HUB}"))


@pytest.fixture(scope="module")
def wire():
    if lack := network.missing():
        pytest.skip(lack)
    try:
        with network.namespaces(2, 1000) as made:
            yield made
    except RuntimeError as error:
        pytest.skip(f"this machine makes no network namespaces: {error}")


@pytest.fixture
def cluster(wire, tmp_path):
    """Run Dask's programs, each worker in a namespace of its own; give the scheduler's address."""
    programs, dask = Programs(tmp_path), [sys.executable, "-m", "dask"]
    common = ["--no-dashboard", "--scheduler-file", str(tmp_path / "scheduler.json")]
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    try:
        scheduler = [*wire.hub.prefix, *dask, "scheduler", "--host", wire.hub.address, "--port", "8786", *common]
        programs.launch("scheduler", scheduler, env)
        for number, seat in enumerate(wire.members):
            options = ["--host", seat.address, "--worker-port", str(WORKER), "--nthreads", "1", "--no-nanny"]
            places = ["--local-directory", str(tmp_path), *common]
            programs.launch(f"worker-{number}", [*seat.prefix, *dask, "worker", *options, *places], env)
        for number in range(len(wire.members)):
            programs.wait_for(f"worker-{number}", r"Registered to:")
        yield f"tcp://{wire.hub.address}:8786"
    finally:
        programs.close(grace=0.0)


def filter_packets(wire):
    """Let members reach the hub's host alone, there the scheduler's port and one more, and answer from their own."""
    hub = str(wire.hub.namespace)
    for number, seat in enumerate(wire.members):
        run = functools.partial(subprocess.run, check=True, capture_output=True)
        run(["ip", "-n", hub, "link", "set", f"port{number}", "type", "bridge_slave", "isolated", "on"])
        rule = ["ip", "-n", str(seat.namespace), "rule", "add"]
        for side, port in (("dport", 8786), ("dport", HUB), ("sport", WORKER)):
            passes = ["priority", "100", "to", wire.hub.address, "ipproto", "tcp", side, str(port), "lookup", "main"]
            run([*rule, *passes])
        run([*rule, "priority", "200", "blackhole"])


@pytest.mark.dask
def test_a_star_through_one_port_trains_as_a_mesh_does(wire, cluster, tmp_path):
    program = [*wire.hub.prefix, sys.executable, __file__, cluster, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(program, **pipes, env=env) as driver:
        try:
            said = ""
            while not said.endswith("meshed\n"):
                line = driver.stdout.readline()
                said += line
                assert line, said
            filter_packets(wire)
            said, _ = driver.communicate("filtered\n", timeout=100)
        finally:
            driver.kill()
    assert driver.returncode == 0, said
    assert re.search(r"refused: .*did not meet member [01] at 10\.77\.0\.[12]\S* within 2 s.*topology='star'", said), (
        said
    )
    np.testing.assert_array_equal(np.load(tmp_path / "star.npy"), np.load(tmp_path / "mesh.npy"))


if __name__ == "__main__":
    drive(*sys.argv[1:])
