"""Fixtures for all tests: what takes seconds to start is started once in a run."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# On a machine that does other things too, threads that spin while they wait can make a small loop 25 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

    from strombus.executors.local import LocalExecutor

IMPORTS = ["distributed", "strombus.worker.averaging", "strombus.worker.sharing", "torch._dynamo"]
"""What every Dask worker comes to import; the last is what torch imports for its first optimizer."""


@pytest.fixture(scope="session")
def local_executors() -> Iterator[dict[int, LocalExecutor]]:
    """Executors of one slot and of two, the second with processes that stay."""
    from strombus.executors.local import LocalExecutor

    with LocalExecutor(1) as one, LocalExecutor(2) as two:
        yield {1: one, 2: two}


@pytest.fixture(scope="session")
def fast_nannies() -> None:
    """Have nannies fork workers from a process that has imported what they need: to import it takes each 4 s of CPU."""
    import dask
    from distributed.utils import get_mp_context

    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    get_mp_context()  # which names imports of its own when it is asked for the first time
    multiprocessing.set_forkserver_preload(IMPORTS)


@pytest.fixture(scope="session")
def dask_cluster(fast_nannies: None) -> Iterator[LocalCluster]:
    """Two worker processes of one thread each."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def dask_client(dask_cluster: LocalCluster) -> Iterator[Client]:
    """A client of the cluster, which is not the current client of the process."""
    from distributed import Client

    with Client(dask_cluster, set_as_default=False) as client:
        yield client
