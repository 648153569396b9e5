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
        """Launch a program and wait until it is ready."""
        self.launch(name, command, env)
        return self.wait_for(name, ready)

    def launch(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start a program, and do not wait."""
        with self._log(name).open("wb") as output:
            self.running[name] = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=self.folder, env=env
            )

    def wait_for(self, name: str, ready: str) -> str:
        """Wait until a program has printed something that `ready` finds, and return the first group of it."""
        log, deadline = self._log(name), time.monotonic() + PATIENCE
        while not (found := re.search(ready, log.read_text())):
            if self.running[name].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        return found[1] if found.re.groups else found[0]

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def close(self, grace: float = 15.0) -> None:
        """End all programs, the youngest first; what still runs after `grace` seconds is killed."""
        youngest_first = list(reversed(self.running.values()))
        for program in youngest_first:
            program.terminate()
        for program in youngest_first:
            try:
                program.wait(grace)
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
    dask, file = [sys.executable, "-m", "dask"], str(folder / "scheduler.json")
    host = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", file]
    options = [*host, "--nthreads", "1", "--no-nanny", "--local-directory", str(folder)]
    try:
        programs.launch("scheduler", [*dask, "scheduler", "--port", "0", *host])
        for number in range(workers):  # which wait for the scheduler's file while they import
            programs.launch(f"worker-{number}", [*dask, "worker", *options], {**os.environ, **(env or {})})
        address = programs.wait_for("scheduler", r"Scheduler at:\s+(tcp://127\.0\.0\.1:\d+)")
        for number in range(workers):
            programs.wait_for(f"worker-{number}", r"Registered to:")
        yield address, programs
    finally:
        programs.close(grace=0.0)  # told to end, a worker whose peer has died waits for it until it is killed anyway


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
        worker = [*run, "org.apache.spark.deploy.worker.Worker"]
        for number, host in enumerate(hosts):
            command = [*worker, "--host", host, *address[2:], *resources, master]
            programs.launch(f"worker-{number}", command, {**env, "SPARK_LOCAL_IP": host})
        for number in range(len(hosts)):
            programs.wait_for(f"worker-{number}", r"Successfully registered with master")
        yield master
    finally:
        programs.close()
