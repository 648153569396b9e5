"""The local engine keeps the executor contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from strombus.executors.base import Executor
from strombus.executors.local import LocalExecutor
from strombus.testing.executor_suite import ExecutorSuite


@pytest.fixture(scope="module")
def make_executor() -> Callable[[], Executor]:
    return partial(LocalExecutor, workers=2)


class TestLocalExecutor(ExecutorSuite):
    """With one process for each slot."""
