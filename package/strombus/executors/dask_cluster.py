"""Find or open the Dask cluster that a backend's name or address stands for."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distributed import Client, Scheduler, Security, rpc
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessWorker

from strombus.errors import ConfigurationError, ExecutorError, reason_of
from strombus.executors.dask import DaskExecutor
from strombus.executors.dask_placement import client_of_task

__all__ = ["connect", "current_client", "open_dask"]

PATIENCE = 5.0
"""Seconds for a scheduler to answer."""
STARTUP = 120.0
"""Seconds for the workers of an embedded cluster to start."""


def current_client() -> Client | None:
    """Return the current Dask client, None where there is none; within a Dask task that is its worker's."""
    for find in (partial(Client.current, allow_global=False), client_of_task, Client.current):
        with suppress(ValueError):
            if (client := find()) is not None:
                return client
    return None


def open_dask(workers: int | None = None) -> DaskExecutor:
    """Return an executor on the current client, else on a cluster of processes on this machine.

    Parameters
    ----------
    workers : int, optional
        Processes of the embedded cluster, one thread each; by default as many as CPUs.
    """
    client = current_client()
    return DaskExecutor(client) if client is not None else _embed(workers)


def connect(address: str) -> DaskExecutor:
    """Return an executor on the scheduler at `address`; it closes its client, never the cluster.

    Raises
    ------
    ExecutorError
        When no scheduler answers there within seconds.
    """
    try:
        with ThreadPoolExecutor(1) as thread:  # the caller may be inside an event loop, as in a notebook
            thread.submit(asyncio.run, _greet(address)).result()
        client = Client(address, set_as_default=False, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise ExecutorError(
            f"no Dask scheduler answered at {address} within {PATIENCE:g} s ({reason_of(error)}); is it "
            "running, and is this the address that `dask scheduler` printed?"
        ) from error
    return DaskExecutor(client, [client])


async def _greet(address: str) -> None:
    """Raise unless a scheduler answers: `Client` itself waits minutes for a port that is open and silent."""
    arguments = Security().get_connection_args("client")
    async with asyncio.timeout(PATIENCE), rpc(address, connection_args=arguments) as scheduler:
        await scheduler.identity()


def _embed(workers: int | None) -> DaskExecutor:
    """Start a scheduler here and workers as programs of their own.

    `distributed.LocalCluster` forks its workers from this program instead, which then needs an
    ``if __name__ == "__main__"``.
    """
    if workers is not None and workers < 1:
        raise ConfigurationError(f"workers must be at least 1, got {workers}")
    count = workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    options = {"nthreads": 1, "host": "127.0.0.1", "silence_logs": logging.WARNING, "dashboard": False}
    worker: dict[str, Any] = {"cls": SubprocessWorker, "options": {"worker_kwargs": options}}
    dashboard = find_spec("bokeh") is not None
    cluster = _QuietCluster(
        workers=dict.fromkeys(range(count), worker),
        scheduler={
            "cls": Scheduler,
            "options": {"host": "127.0.0.1", "port": 0, "dashboard": dashboard, "dashboard_address": "127.0.0.1:0"},
        },
        worker=worker,
        name="strombus",
        silence_logs=logging.WARNING,
    )
    client = Client(cluster, set_as_default=False)
    executor = DaskExecutor(client, [client, cluster])
    try:
        client.wait_for_workers(count, timeout=STARTUP)
        client.run(_be_quiet)
        for nanny in (True, False):  # a worker that a nanny starts anew looks where the nanny does
            client.run(_look_in, [str(Path(folder).absolute()) for folder in sys.path], nanny=nanny)
            client.run(_ignore_interrupts, nanny=nanny)
    except BaseException as error:
        executor.close()
        if isinstance(error, TimeoutError):
            raise ExecutorError(f"{count} Dask workers did not start on this machine in {STARTUP:g} s") from error
        raise
    return executor


class _QuietCluster(SpecCluster):  # type: ignore[misc]
    """A cluster that logs warnings only, to its very end.

    Its option `silence_logs` ends before its event loop does, which may still log that a connection was closed.
    """

    def close(self, timeout: float | None = None) -> Any:
        logger = logging.getLogger("distributed")
        level = logger.level
        logger.setLevel(logging.WARNING)
        try:
            return super().close(timeout)
        finally:
            logger.setLevel(level)


def _look_in(folders: Sequence[str]) -> None:
    """Have a process import from where this program does: modules that lie beside a script are not elsewhere."""
    sys.path += [folder for folder in folders if folder not in sys.path]


def _ignore_interrupts() -> None:
    """Have a process leave Ctrl-C, which a terminal sends to all that it has started, to the driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _be_quiet() -> None:
    """Have a worker log warnings only, to its very end.

    Its option `silence_logs` ends with it: then it may still log, with a traceback, that its connections were closed.
    """
    logging.getLogger("distributed").setLevel(logging.WARNING)
