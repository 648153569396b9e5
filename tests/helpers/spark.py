"""One Spark application of separate executor processes for all tests of a run."""

from __future__ import annotations

import atexit
import functools
import os
import sys
from pathlib import Path
from unittest import mock

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

__all__ = ["spark_context", "spark_session"]

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # Executors import what tests hand them from `helpers`.
    "spark.executorEnv.PYTHONPATH": str(Path(__file__).parents[1]),
}


@functools.cache
def spark_context() -> SparkContext:
    """Return the context of ``local-cluster[2,1,1024]``: two executor processes of one core each, on loopback."""
    conf = SparkConf().setMaster("local-cluster[2,1,1024]").setAppName("strombus-tests").setAll(SETTINGS.items())
    with mock.patch.dict(os.environ, {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}):
        context = SparkContext(conf=conf)
    atexit.register(context.stop)
    return context


@functools.cache
def spark_session() -> SparkSession:
    """Return the session over `spark_context`; it takes some seconds more, so ask only where SQL is needed."""
    return SparkSession(spark_context())
