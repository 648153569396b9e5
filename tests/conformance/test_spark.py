"""Spark keeps the executor contract, on two executor processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")

from helpers.spark import spark_context

from strombus.executors.base import Executor
from strombus.executors.spark import SparkExecutor
from strombus.testing.executor_suite import ExecutorSuite

pytestmark = pytest.mark.spark


class TestSpark(ExecutorSuite):
    @pytest.fixture(scope="class")
    def make_executor(self) -> Callable[[], Executor]:
        return lambda: SparkExecutor(spark_context())
