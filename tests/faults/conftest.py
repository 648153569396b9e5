"""A Dask cluster of its own for the tests that kill workers."""

from __future__ import annotations

import pytest
from helpers.fault_matrix import Row, table


@pytest.fixture(scope="session")
def restarting_client(fast_nannies):
    """A client of two workers under nannies, which start one again that has died."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


_ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def fault_rows(pytestconfig):
    """What each cell of the matrix came to; printed when all have run."""
    return pytestconfig.stash.setdefault(_ROWS, [])


def pytest_terminal_summary(terminalreporter, config):
    if rows := config.stash.get(_ROWS, []):
        terminalreporter.section("faults")
        for line in table(rows):
            terminalreporter.write_line(line)
