"""Dask keeps the executor contract, on two worker processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from strombus.executors.base import Executor
from strombus.executors.dask import DaskExecutor
from strombus.testing.executor_suite import ExecutorSuite

if TYPE_CHECKING:
    from distributed import Client

pytestmark = pytest.mark.dask


@pytest.fixture(scope="module")
def make_executor(dask_client: Client) -> Callable[[], Executor]:
    return partial(DaskExecutor, dask_client)


class TestDaskExecutor(ExecutorSuite):
    """With a client that was given."""
