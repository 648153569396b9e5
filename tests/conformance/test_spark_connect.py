"""Spark Connect keeps the executor contract, on a server that is a program of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("grpc", reason="Spark Connect's client is not installed (pip install strombus[connect])")
pytest.importorskip("pyspark", reason="pyspark is not installed")

from helpers.spark_connect import connect_session

from strombus.executors.base import Executor
from strombus.executors.spark_connect import SparkConnectExecutor
from strombus.testing.executor_suite import ExecutorSuite

pytestmark = pytest.mark.spark


class TestSparkConnect(ExecutorSuite):
    @pytest.fixture(scope="class")
    def make_executor(self) -> Callable[[], Executor]:
        return lambda: SparkConnectExecutor(connect_session())
