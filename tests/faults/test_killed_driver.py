"""A driver that is killed at any moment leaves no process behind, and the same command comes to the same result.

STROMBUS_KILLS=20 kills that many drivers on each backend, which is what ``tox -e soak`` does.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from strombus.testing.faults import kill_process

HELPERS = Path(__file__).parents[1] / "helpers"
KILLS = int(os.environ.get("STROMBUS_KILLS", "0"))
PATIENCE = 120.0
SOON = 60.0
"""Seconds in which the workers of a driver that was killed must have ended by themselves."""

BACKENDS = ["local", pytest.param("dask", marks=pytest.mark.dask)]
if KILLS:  # an application of its own takes Spark a quarter of a minute to start, twice for each kill
    BACKENDS.append(pytest.param("spark", marks=pytest.mark.spark))
MASTERS = ["averaging", "sharing"] if KILLS else ["averaging"]
MOMENTS = range(KILLS) if KILLS else range(1)


@contextmanager
def driver(backend, folder, master):
    """Run the program in a process of its own."""
    surroundings = {**os.environ, "PYTHONPATH": str(HELPERS.parent)}
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        command = [sys.executable, str(HELPERS / "driver.py"), backend, str(folder), master]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=surroundings)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)


def run(backend, folder, master):
    """Run the program to its end."""
    with driver(backend, folder, master) as process:
        assert process.wait(PATIENCE) == 0, (folder / "log").read_text()[-3000:]


def lines_of(folder):
    """Return the lines of metrics.jsonl that are there by now, the last one perhaps unfinished."""
    path = folder / "one" / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def wait_for_lines(process, folder, count):
    """Wait until the fit has come so far, or has ended."""
    deadline = time.monotonic() + PATIENCE
    while len(lines_of(folder)) < count and process.poll() is None:
        assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
        time.sleep(0.002)


def result_of(folder, master):
    """Return the network's file, byte for byte, and everything that was measured but for the time that it took."""
    result = json.loads((folder / "one" / "result.json").read_text())
    del result["seconds"]
    for record in result["epochs"]:
        del record["seconds"]
    lines = [json.loads(line) for line in lines_of(folder)]
    figures = [
        (line["epoch"], line["iteration"], line["source"], line.get("loss", line.get("score"))) for line in lines
    ]
    if master == "sharing":  # whose members report every half second
        figures = [figure for figure in figures if figure[2] == "driver"]
    return (folder / "one" / "network.safetensors").read_bytes(), result, figures


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What each backend comes to when nobody is killed; made when first asked for."""

    @functools.cache
    def make(backend, master):
        folder, started = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
        run(backend, folder, master)
        return result_of(folder, master), time.monotonic() - started

    return make


def wait_for_a_moment(process, folder, chance, expected, seconds):
    """Wait until the fit has come to some line of its metrics, or where members report now and then, for some time."""
    if len(expected[2]) > 10:
        wait_for_lines(process, folder, chance.randrange(len(expected[2])))
        time.sleep(chance.uniform(0, 0.05))  # about as long as a round with its checkpoint takes
    else:
        time.sleep(chance.uniform(0, seconds))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("master", MASTERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_driver_that_is_killed(tmp_path, undisturbed, backend, master, moment):
    expected, seconds = undisturbed(backend, master)
    chance = random.Random(f"{backend} {moment}")
    with driver(backend, tmp_path, master) as process:
        wait_for_a_moment(process, tmp_path, chance, expected, seconds)
        workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if process.poll() is None:
            kill_process(process.pid)
        assert process.wait(PATIENCE) in (-signal.SIGKILL, 0)
    _, alive = psutil.wait_procs(workers, SOON)
    assert alive == []
    run(backend, tmp_path, master)
    assert result_of(tmp_path, master) == expected
