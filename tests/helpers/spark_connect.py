"""One Spark Connect server for all tests of a run."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import tempfile
from pathlib import Path

import pyspark
import pytest
from helpers.programs import Programs, spark_tool
from helpers.spark import JAVA, SETTINGS
from pyspark.sql.connect.session import SparkSession

__all__ = ["connect_session"]


@functools.cache
def connect_session() -> SparkSession:
    """Return a session of a Spark Connect server that is a program of its own, with ``local[2,4]``, on loopback."""
    if int(pyspark.__version__.partition(".")[0]) < 4:
        pytest.skip("pyspark 3 brings no Spark Connect server, pyspark 4 does")
    programs = Programs(Path(tempfile.mkdtemp(prefix="strombus-connect-")))
    atexit.register(programs.close)
    settings = {**SETTINGS, "spark.connect.grpc.binding.address": "127.0.0.1", "spark.connect.grpc.binding.port": "0"}
    settings["spark.log.level"] = "INFO"  # at which it says its port
    command = [spark_tool("spark-submit"), "--master", "local[2,4]"]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command += [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith(("PYSPARK", "SPARK"))}
    surroundings |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", **JAVA}
    surroundings["PYTHONPATH"] = str(Path(__file__).parents[1])  # workers import what tests hand them from `helpers`
    ready = r"Spark Connect server started at: 127\.0\.0\.1:(\d+)"
    port = programs.start("connect", [*command, "spark-internal"], ready, surroundings)
    # The builder of pyspark.sql refuses a second kind of session beside a classic one.
    return SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
