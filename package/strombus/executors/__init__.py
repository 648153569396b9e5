"""Engines that run the work: this machine, Dask, Spark, or any other `Executor`."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from strombus.errors import ConfigurationError, ExecutorError
from strombus.executors.base import Executor
from strombus.registry import Registry

__all__ = ["EXECUTORS", "resolve"]

EXECUTORS = Registry(
    "backend",
    {
        "local": "strombus.executors.local:LocalExecutor",
        "dask": "strombus.executors.dask_cluster:open_dask",
        "spark": "strombus.executors.spark:open_spark",
        "spark-connect": "strombus.executors.spark_connect:SparkConnectExecutor",
    },
    group="strombus.executors",
)
"""Backends by name: functions that return an `Executor`, and are given ``workers`` if they take it."""

SCHEMES = ("tcp", "tls", "ucx", "ws", "wss")


def resolve(backend: Any = "auto", workers: int | None = None) -> Executor:
    """Return the executor that `backend` stands for.

    Parameters
    ----------
    backend : str, distributed.Client, DaskSparkContext, SparkSession, SparkContext or Executor
        ``"auto"``: the current Dask client or the active Spark session, if there is exactly one of them, else
        ``"local"``; ``"dask"``: the current client, else a cluster of processes on this machine; ``"spark"``: the
        active session, of Spark Connect too, else a new one; a scheduler's address (``"tcp://host:8786"``); the name
        of another registered backend. What is handed over here is never closed by the executor; an `Executor` is
        returned as it is.
    workers : int, optional
        Slots of what is opened on this machine, as many as CPUs by default.

    Raises
    ------
    ConfigurationError
        When `backend` is none of these, or ``"auto"`` finds two engines.
    ExecutorError
        When the engine is not installed, or no scheduler answers.
    """
    if isinstance(backend, Executor):
        return backend
    try:
        if isinstance(backend, str):
            return _by_name(backend, workers)
        engine = _engine_of(backend)
        if engine == "dask":
            from strombus.executors.dask import DaskExecutor

            return DaskExecutor(backend)
        if engine == "spark":
            return _checked(EXECUTORS["spark"](backend))
        if _engine_of(getattr(backend, "client", None)) == "dask":
            from strombus.executors.dask import DaskExecutor

            return DaskExecutor(backend.client)  # of a DaskSparkContext
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "pyspark":
            raise ExecutorError('backend="spark" needs pyspark: run `pip install strombus[spark]`') from error
        raise
    raise ConfigurationError(f"backend must be {_accepted()}; got {type(backend).__name__}: {backend!r}")


def _by_name(backend: str, workers: int | None) -> Executor:
    if backend == "auto":
        backend = _active_engine()
    scheme, separator, _ = backend.partition("://")
    if separator and scheme in SCHEMES:
        from strombus.executors.dask_cluster import connect

        return connect(backend)
    if backend not in EXECUTORS:
        raise ConfigurationError(f"backend must be {_accepted()}; got {backend!r}")
    make = EXECUTORS[backend]
    return _checked(make(workers=workers) if "workers" in inspect.signature(make).parameters else make())


def _accepted() -> str:
    names = ", ".join(f'"{name}"' for name in ("auto", *EXECUTORS))
    return (
        f'one of {names}, the address of a Dask scheduler ("tcp://host:8786"), a distributed.Client, a SparkSession, '
        "a SparkContext, or an Executor"
    )


def _checked(executor: Any) -> Executor:
    if not isinstance(executor, Executor):
        raise ConfigurationError(f"a registered backend must return an Executor, got {type(executor).__name__}")
    return executor


def _engine_of(backend: Any) -> str | None:
    """Tell whose object this is by its class, so that no engine is imported to find out."""
    for kind in type(backend).__mro__:
        package = kind.__module__.partition(".")[0]
        if package == "distributed" and kind.__name__ == "Client":
            return "dask"
        if package == "pyspark" and kind.__name__ in ("SparkSession", "SparkContext"):
            return "spark"
    return None


def _active_engine() -> str:
    """Return the engine that this program has in use, ``"local"`` if it has none."""
    active = [name for name, found in (("dask", _dask_is_active), ("spark", _spark_is_active)) if found()]
    if len(active) > 1:
        raise ConfigurationError(
            'backend="auto" found both a current Dask client and an active Spark session; '
            'say backend="dask" or backend="spark"'
        )
    return active[0] if active else "local"


def _dask_is_active() -> bool:
    if "distributed" not in sys.modules:
        return False
    from strombus.executors.dask_cluster import current_client

    return current_client() is not None


def _spark_is_active() -> bool:
    if "pyspark.sql" not in sys.modules:
        return False
    from strombus.executors.spark_session import connect_session_of, context_of

    return connect_session_of(None) is not None or context_of(None) is not None
