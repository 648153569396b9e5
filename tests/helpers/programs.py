"""Real clusters for a test: the programs that users start, on loopback, ended by their process ids whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

__all__ = ["Programs", "dask_programs", "spark_programs", "spark_tool"]

PATIENCE = 90.0
"""Seconds for a program to say that it is ready, on a busy machine."""


class Programs:
    """Programs that run beside a test, their output in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], ready: str, env: Mapping[str, str] | None = None) -> str:
        """Start a program, wait until it has printed something that `ready` finds, and return the first group of it."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            program = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=self.folder, env=env
            )
        self.running[name] = program
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(ready, log.read_text())):
            if program.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        return found[1] if found.re.groups else found[0]

    def close(self) -> None:
        """End all programs, the youngest first."""
        youngest_first = list(reversed(self.running.values()))
        for program in youngest_first:
            program.terminate()
        for program in youngest_first:
            try:
                program.wait(15)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait(15)


@contextlib.contextmanager
def dask_programs(
    folder: Path, workers: int = 2, env: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Programs]]:
    """Run ``dask scheduler`` and ``dask worker`` programs of one thread each; give the address and the programs.

    `env` is what the workers' environment has besides this one's.
    """
    programs = Programs(folder)
    dask = [sys.executable, "-m", "dask"]
    surroundings = {**os.environ, **(env or {})}
    try:
        address = programs.start(
            "scheduler",
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
            r"Scheduler at:\s+(tcp://127\.0\.0\.1:\d+)",
        )
        options = ["--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        options += ["--local-directory", str(folder)]
        for number in range(workers):
            programs.start(
                f"worker-{number}", [*dask, "worker", address, *options], r"Registered to:", env=surroundings
            )
        yield address, programs
    finally:
        programs.close()


def spark_tool(name: str) -> str:
    """Return one of the scripts that PySpark brings, such as ``spark-submit``."""
    spec = find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "bin" / name)


@contextlib.contextmanager
def spark_programs(
    folder: Path, env: Mapping[str, str], hosts: Sequence[str] = ("127.0.0.1",), cores: int = 2
) -> Iterator[str]:
    """Run a standalone Spark cluster, with a worker on each of these addresses; give the master's address."""
    programs = Programs(folder)
    run = [spark_tool("spark-class")]
    address = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
    try:
        master = programs.start(
            "master",
            [*run, "org.apache.spark.deploy.master.Master", *address],
            r"Starting Spark master at (spark://127\.0\.0\.1:\d+)",
            env,
        )
        resources = ["--cores", str(cores), "--memory", "2g", "--work-dir", str(folder / "work")]
        for number, host in enumerate(hosts):
            programs.start(
                f"worker-{number}",
                [*run, "org.apache.spark.deploy.worker.Worker", "--host", host, *address[2:], *resources, master],
                r"Successfully registered with master",
                {**env, "SPARK_LOCAL_IP": host},
            )
        yield master
    finally:
        programs.close()
