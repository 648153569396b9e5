"""Settings of a Spark application that cost a training time, or forbid it."""

from __future__ import annotations

from collections.abc import Mapping

from strombus.types import Finding

__all__ = ["READ", "concerns_of"]

READ = (
    "spark.master",
    "spark.dynamicAllocation.enabled",
    "spark.speculation",
    "spark.python.worker.reuse",
    "spark.executor.cores",
    "spark.task.cpus",
    "spark.executor.memoryOverhead",
    "spark.executor.memoryOverheadFactor",
    "spark.executor.pyspark.memory",
)
"""The settings that `concerns_of` looks at."""


def concerns_of(settings: Mapping[str, str], local: bool) -> list[Finding]:
    """Look through a SparkConf's settings.

    Parameters
    ----------
    settings : mapping
    local : bool
        Whether tasks run in the driver's own JVM.
    """

    def is_on(name: str, default: str = "false") -> bool:
        return settings.get(name, default).lower() == "true"

    found = []
    if is_on("spark.dynamicAllocation.enabled") and not local:
        found.append(
            Finding(
                "problem",
                "spark",
                "dynamic allocation is on: Spark runs no barrier stage then, and shared training needs one",
                "--conf spark.dynamicAllocation.enabled=false, or train with ParameterAveragingTrainingMaster",
            )
        )
    if is_on("spark.speculation"):
        found.append(
            Finding(
                "warning",
                "spark",
                "speculation is on: a slow task runs twice and takes a second slot; its result counts once",
                "--conf spark.speculation=false",
            )
        )
    if not is_on("spark.python.worker.reuse", "true"):
        found.append(
            Finding(
                "warning",
                "spark",
                "Python workers are not reused: every task starts Python and imports torch, a second or more",
                "--conf spark.python.worker.reuse=true",
            )
        )
    cores, cpus = int(settings.get("spark.executor.cores", "0")), int(settings.get("spark.task.cpus", "1") or 1)
    if cores and cores % cpus:
        found.append(
            Finding(
                "warning",
                "spark",
                f"an executor's {cores} cores are no multiple of a task's {cpus}: {cores % cpus} stay idle",
                f"--conf spark.task.cpus={_divisor_below(cores, cpus)}",
            )
        )
    managed = settings.get("spark.master", "").startswith(("yarn", "k8s"))
    overhead = {"spark.executor.memoryOverhead", "spark.executor.memoryOverheadFactor", "spark.executor.pyspark.memory"}
    if managed and not overhead & settings.keys():
        found.append(
            Finding(
                "note",
                "spark",
                "torch lives outside the executor's heap, in 10 % of its memory by default; a container that "
                "takes more is killed",
                "--conf spark.executor.memoryOverheadFactor=0.5",
            )
        )
    return found


def _divisor_below(cores: int, most: int) -> int:
    return next(count for count in range(min(most, cores), 0, -1) if cores % count == 0)
