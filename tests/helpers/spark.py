"""One Spark application of separate executor processes for all tests of a run."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import time
from pathlib import Path
from unittest import mock

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

__all__ = ["JAVA", "spark_context", "spark_session"]

JAVA = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
"""Environment of JVMs that live for a minute: the optimising compiler would take most of their time."""

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.python.daemon.module": "helpers.spark_daemon",
    "spark.decommission.enabled": "true",
    # Executors import what tests hand them from `helpers`.
    "spark.executorEnv.PYTHONPATH": str(Path(__file__).parents[1]),
}


@functools.cache
def spark_context() -> SparkContext:
    """Return the context of ``local-cluster[2,1,1024]``: two executor processes of one core each, on loopback."""
    conf = SparkConf().setMaster("local-cluster[2,1,1024]").setAppName("strombus-tests").setAll(SETTINGS.items())
    surroundings = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONHASHSEED": "0", **JAVA}
    with mock.patch.dict(os.environ, surroundings):
        context = SparkContext(conf=conf)
        atexit.register(context.stop)
        _wait_for_executors(context)
    return context


def _wait_for_executors(context: SparkContext) -> None:
    """Wait until both executors, and the driver, are listed: a busy machine takes a while to start them."""
    deadline = time.monotonic() + 120
    while len(context._jsc.sc().statusTracker().getExecutorInfos()) < 3:
        if time.monotonic() > deadline:
            raise TimeoutError("Spark's two executors did not start within 120 s")
        time.sleep(0.1)


@functools.cache
def spark_session() -> SparkSession:
    """Return the session over `spark_context`; it takes some seconds more, so ask only where SQL is needed."""
    return SparkSession(spark_context())
