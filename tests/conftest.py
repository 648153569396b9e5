"""Fixtures for all tests: one Dask cluster of processes for the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# On a machine that does other things too, threads that spin while they wait can make a small loop 25 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from distributed import Client, LocalCluster


@pytest.fixture(scope="session")
def dask_cluster() -> Iterator[LocalCluster]:
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
