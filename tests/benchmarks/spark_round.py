"""What a round of parameter averaging costs on Spark before anybody trains.

Prints the milliseconds of a round that shares 7.4 MB of float32, returns as much from each of two slots,
and merges and finishes it, beside those of an empty Spark job of two tasks.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 30
WARM_UP = 30
PARAMETERS = 1_850_000

Vector = NDArray[np.float32]


def return_parameters(parameters: Vector, _: int) -> tuple[Vector, int]:
    """Do what a worker does in a round, without its steps."""
    return parameters, 1


def add(left: tuple[Any, int], right: tuple[Vector, int]) -> tuple[Any, int]:
    """Add two contributions in float64, as averaging does."""
    total = left[0] if left[0].dtype == np.float64 else left[0].astype(np.float64)
    total += right[0]
    return total, left[1] + right[1]


def mean(merged: tuple[Any, int]) -> Vector:
    """Divide the sum by its count."""
    return (merged[0] / merged[1]).astype(np.float32)


def empty(items: Iterable[int]) -> list[int]:
    """Return what came: all items must be read for Spark to keep the process."""
    return list(items)


def milliseconds(call: Callable[[], object], count: int) -> list[float]:
    """Time `count` calls."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        found.append((time.perf_counter() - started) * 1e3)
    return found


def main() -> None:
    """Print the cost of a round and the share of an empty job in it."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark import SparkConf, SparkContext

    from strombus.executors.spark import SparkExecutor

    conf = SparkConf().setMaster("local-cluster[2,1,1024]").setAppName("spark_round")
    conf.set("spark.ui.showConsoleProgress", "false").set("spark.log.level", "ERROR").set("spark.ui.enabled", "false")
    with SparkContext(conf=conf) as context, SparkExecutor(context) as executor:
        executor.check()
        state = executor.share(np.random.default_rng(0).standard_normal(PARAMETERS, np.float32))

        def run_round() -> None:
            nonlocal state
            before, state = state, executor.map_reduce(return_parameters, [0, 1], add, state, finish=mean)
            before.free()

        def run_empty_job() -> None:
            context.runJob(context.parallelize([0, 1], 2), empty)

        milliseconds(run_round, WARM_UP)
        rounds, jobs = milliseconds(run_round, ROUNDS), milliseconds(run_empty_job, ROUNDS)
    median, job = statistics.median(rounds), statistics.median(jobs)
    print(f"round of 7.4 MB on 2 slots: {median:.0f} ms (fastest {min(rounds):.0f}), of {ROUNDS}")
    print(f"empty Spark job of 2 tasks: {job:.0f} ms (fastest {min(jobs):.0f}), {job / median:.0%} of the round")


if __name__ == "__main__":
    main()
