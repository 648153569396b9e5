"""Find, check or open the Spark application under a `SparkExecutor`, and tell what it can run."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from strombus.errors import ConfigurationError, ExecutorError
from strombus.executors.spark_jobs import translated
from strombus.types import Capacity

if TYPE_CHECKING:
    from pyspark import SparkContext

__all__ = [
    "capacity_of",
    "connect_session_of",
    "context_of",
    "ensure_running",
    "is_dynamic",
    "is_local",
    "known_profile",
    "open_context",
    "task_cpus",
]

REGISTRATION_SECONDS = 30.0
"""How long executors may take to register (Spark's own default for the same wait)."""

CONNECT = (
    "a SparkExecutor needs Spark Classic: Spark Connect has neither RDDs nor broadcasts. "
    "Give the session itself, backend=session, or strombus.executors.spark_connect.SparkConnectExecutor(session)"
)


def connect_session_of(spark: Any) -> Any:
    """Return the Spark Connect session that `spark` is, or for None the one that this program uses, if any.

    That is the active one; with SPARK_REMOTE in the environment (``pyspark --remote``) it is made here.
    """
    if spark is not None:
        return spark if type(spark).__module__.startswith("pyspark.sql.connect") else None
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:
        return None
    if "SPARK_REMOTE" in os.environ:
        from pyspark.sql import SparkSession

        return SparkSession.builder.getOrCreate()
    connect = sys.modules.get("pyspark.sql.connect.session")
    return None if connect is None else connect.SparkSession.getActiveSession()


def context_of(spark: Any) -> SparkContext | None:
    """Return the SparkContext of a session or context, of the active one for None; None if there is none.

    Raises
    ------
    ExecutorError
        For a Spark Connect session or a stopped one.
    ConfigurationError
        For anything else.
    """
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if spark is None:
        # The public getActiveSession() misses a bare SparkContext, with which no second one can live.
        spark = SparkSession.getActiveSession() or SparkContext._active_spark_context
        if spark is None:
            return None
    if type(spark).__module__.startswith("pyspark.sql.connect"):
        raise ExecutorError(CONNECT)
    if not isinstance(spark, SparkSession | SparkContext):
        wanted = "a SparkSession, a SparkContext or None"
        raise ConfigurationError(f"SparkExecutor takes {wanted}, got {type(spark).__name__}: {spark!r}")
    context = spark.sparkContext if isinstance(spark, SparkSession) else spark
    ensure_running(context)
    return context


def ensure_running(context: SparkContext) -> None:
    """Raise `ExecutorError` when `context` was stopped or its JVM is gone."""
    from py4j.protocol import Py4JError, Py4JNetworkError

    try:
        stopped = context._jsc is None or context._jsc.sc().isStopped()
    except (Py4JError, Py4JNetworkError, OSError) as error:
        raise ExecutorError(f"the JVM of the Spark session does not answer ({error}); make a new session") from error
    if stopped:
        raise ExecutorError("the Spark session was stopped; make a new one and a new SparkExecutor from it")


def open_context() -> SparkContext:
    """Open a context with the master of spark-submit or of Spark's configuration, else ``local[*]``.

    A context alone: the session that would come with it takes seconds to open, and no task needs it.
    """
    from pyspark import SparkConf, SparkContext

    conf = SparkConf().set("spark.log.level", "ERROR").set("spark.ui.showConsoleProgress", "false")
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # spark-submit sets it, and its user has chosen a name and a page
        conf.setAppName("strombus").set("spark.ui.enabled", "false")
    with _python_for_workers():
        return SparkContext(conf=conf)


@contextmanager
def _python_for_workers() -> Iterator[None]:
    """Let workers run this interpreter: PySpark would take the first ``python3`` of PATH."""
    name = "PYSPARK_PYTHON"
    if name in os.environ:
        yield
        return
    os.environ[name] = sys.executable
    try:
        yield
    finally:
        del os.environ[name]


def known_profile(context: SparkContext, profile: Any) -> Any:
    """Return a ResourceProfile as this application knows it, so that all stages name the same one."""
    from pyspark.resource import ResourceProfile

    if not isinstance(profile, ResourceProfile):
        raise ConfigurationError(
            f"profile must be a pyspark.resource.ResourceProfile, got {type(profile).__name__}: "
            "ResourceProfileBuilder().require(TaskResourceRequests().cpus(2)).build"
        )
    with translated():
        return context.parallelize([0], 1).withResources(profile).getResourceProfile()


def task_cpus(context: SparkContext, profile: Any = None) -> int:
    """Return the threads that one task may use: the profile's cpus, or ``spark.task.cpus``."""
    if profile is not None and "cpus" in profile.taskResources:
        return max(1, int(profile.taskResources["cpus"].amount))
    return int(context.getConf().get("spark.task.cpus", "1") or 1)


def is_dynamic(context: SparkContext) -> bool:
    """Say whether Spark adds and removes executors by itself."""
    enabled = context.getConf().get("spark.dynamicAllocation.enabled", "false")
    return str(enabled).lower() == "true" and not is_local(context)


def is_local(context: SparkContext) -> bool:
    """Say whether tasks run in the driver's own JVM."""
    master = str(context.master)
    return master == "local" or master.startswith("local[")


def capacity_of(context: SparkContext, profile: Any = None) -> Capacity:
    """Return the tasks that run at the same time, None with dynamic allocation, and their hosts.

    Waits at most 30 s for executors that are still starting. `profile` says what a task needs.
    """
    deadline = time.monotonic() + REGISTRATION_SECONDS
    while not _registered(context) and time.monotonic() < deadline:
        time.sleep(0.1)
    hosts = tuple(sorted(set(_executor_hosts(context))))
    return Capacity(None if is_dynamic(context) else _slots(context, profile), hosts, task_cpus(context, profile))


def _registered(context: SparkContext) -> bool:
    """Say whether the executors asked for are up; without a number asked for, whether any is."""
    if is_dynamic(context) or is_local(context):
        return True
    if context.master.startswith("local-cluster["):
        wanted = int(context.master.partition("[")[2].split(",")[0])
    else:
        wanted = int(context.getConf().get("spark.executor.instances", "1") or 1)
    return len(_executor_hosts(context)) >= wanted and _slots(context) > 0


def _executor_hosts(context: SparkContext) -> list[str]:
    """Return the host of each executor; the driver, which Spark lists too, counts in local mode alone."""
    listed = Counter(info.host() for info in context._jsc.sc().statusTracker().getExecutorInfos())
    if not is_local(context):
        listed.subtract([_driver_host(context, listed)])
    return list(listed.elements())


def _driver_host(context: SparkContext, listed: Counter[str]) -> str:
    """Return the name under which the driver is listed."""
    host = str(context.getConf().get("spark.driver.host", ""))
    return host if host in listed else next(iter(listed), "")


def _slots(context: SparkContext, profile: Any = None) -> int:
    """Return how many tasks run at the same time: Spark's own figure for barrier stages."""
    from py4j.protocol import Py4JError

    scala = context._jsc.sc()
    try:
        default = scala.resourceProfileManager().defaultResourceProfile()
        needs = default if profile is None else profile._java_resource_profile
        return int(scala.maxNumConcurrentTasks(needs))
    except Py4JError:  # not in Spark's public API: another version may lack it
        return max(1, int(context.defaultParallelism) // task_cpus(context, profile))


def ask_for_slots(master: str, count: int, cpus: int) -> str:
    """Return the options of spark-submit that give an application `count` slots of `cpus` cores."""
    if master == "local" or master.startswith("local["):
        return f"--master local[{count * cpus}]"
    if master.startswith("local-cluster["):
        return f"--master local-cluster[{count},{cpus},1024]"
    if master.startswith("spark://"):
        return f"--total-executor-cores {count * cpus} --executor-cores {cpus}"
    return f"--num-executors {count} --executor-cores {cpus}"
