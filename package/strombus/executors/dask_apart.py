"""Dask workers that cannot reach one another: each is given a shared value of its own, by way of the driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, Future

from strombus.executors.base import Shared
from strombus.executors.dask_tasks import by_value
from strombus.executors.values import Packed

__all__ = ["copier", "inputs_of"]

DIAL = 2.0
"""Seconds in which a worker must reach the one that holds a value, as the others do by themselves."""


def copier(client: Client, shared: Shared[Any] | None, direct: bool | None) -> Callable[[str], Future]:
    """Return a function that puts a copy of a shared value on a worker."""

    def copy(worker: str) -> Future:
        assert shared is not None
        made: Future = client.scatter([Packed.of(shared.get())], workers=[worker], hash=False, direct=direct)[0]
        return made

    return copy


def inputs_of(
    client: Client, shared: Future | None, workers: Sequence[str], copy: Callable[[str], Future]
) -> list[list[Future]]:
    """Return what a task on each worker is given of a shared value.

    Dask has a worker fetch what another one holds, again and again where that cannot be reached.

    Parameters
    ----------
    copy : callable
        See `copier`.
    """
    if shared is None:
        return [[] for _ in workers]
    apart = _cut_off(client, shared, workers)
    return [[copy(worker) if worker in apart else shared] for worker in workers]


def _cut_off(client: Client, shared: Future, workers: Sequence[str]) -> set[str]:
    """Return the workers that cannot reach the one with the value; one on the same host is not asked."""
    if len({urlsplit(worker).hostname for worker in workers}) < 2:
        return set()
    holders = [urlsplit(holder) for holder in client.who_has([shared])[shared.key]]
    if not holders or holders[0].port is None:
        return set()
    host, port = holders[0].hostname, holders[0].port
    others = [worker for worker in workers if urlsplit(worker).hostname != host]
    answers = client.run(by_value(_dial), host, port, DIAL, workers=others, on_error="return")
    return {worker for worker, reached in answers.items() if reached is False}


async def _dial(host: str, port: int, seconds: float) -> bool:
    import asyncio

    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), seconds)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
