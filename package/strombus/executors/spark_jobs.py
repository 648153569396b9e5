"""Jobs of a `SparkExecutor`: their sources, their names, and Spark's errors put into words."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from strombus.errors import ConfigurationError, ExecutorError, TaskError
from strombus.executors.calls import dump
from strombus.types import NativePartition

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.rdd import RDD

__all__ = [
    "MISSING",
    "Probed",
    "Source",
    "advise_on_memory",
    "check_probed",
    "check_workers",
    "explain",
    "make_probe",
    "named",
    "run_job",
    "translated",
]

KILLED = ("exceeding memory limits", "exceeding physical memory limits", "exit code 137", "code 137", "OOMKilled")
"""How YARN, Kubernetes and the kernel say that a container or a process was killed for its memory."""

Probed = tuple[str, str, str, str]
"""Host, interpreter, version of Strombus there, and why it cannot be imported where that is empty."""

MISSING = (
    "install it there (pip install strombus), or send a packed environment along: "
    "PYSPARK_PYTHON=./environment/bin/python spark-submit --archives environment.tar.gz#environment ...; "
    f"executors on this machine run the PATH's python3 unless PYSPARK_PYTHON says otherwise, such as {sys.executable}"
)


class Source:
    """The parts of one call as an RDD: small descriptions, or partitions of the caller's own RDDs.

    Parameters
    ----------
    profile : ResourceProfile, optional
        What the tasks on them need.

    Attributes
    ----------
    numbers : dict of int to int or None
        Part number by partition of the RDD, for native partitions.
    """

    def __init__(self, context: SparkContext, parts: Sequence[Any], profile: Any = None) -> None:
        self._context, self._profile = context, profile
        self._parts = parts
        native = [isinstance(part, NativePartition) for part in parts]
        if any(native) and not all(native):
            raise ConfigurationError(
                "the parts of one call must be all native partitions or none, "
                f"got {sum(native)} native ones among {len(native)}"
            )
        self.numbers: dict[int, int] | None = None
        if any(native):
            self._rdd, self._partitions = _join_native(context, parts)
            if profile is not None:  # on an RDD of our own: it would stay with the caller's
                self._rdd = _pruned(self._rdd, list(range(self._rdd.getNumPartitions()))).withResources(profile)
            self.numbers = {partition: number for number, partition in enumerate(self._partitions)}
            if len(self.numbers) < len(parts):
                raise ConfigurationError("a native partition may be given once in a call, got one twice")

    def __len__(self) -> int:
        return len(self._parts)

    def take(self, start: int, stop: int) -> tuple[RDD[Any], list[int]]:
        """Return an RDD and those of its partitions that hold parts `start` to `stop`."""
        if self.numbers is not None:
            return self._rdd, self._partitions[start:stop]
        pickled = [(number, dump(self._parts[number], f"part {number}")) for number in range(start, stop)]
        rdd = self._context.parallelize(pickled, len(pickled))
        return rdd if self._profile is None else rdd.withResources(self._profile), list(range(len(pickled)))


def _join_native(context: SparkContext, parts: Sequence[NativePartition]) -> tuple[RDD[Any], list[int]]:
    """Return one RDD over those of `parts`, and the partition of each part within it."""
    rdds = list({id(part.handle): part.handle for part in parts}.values())
    for part in parts:
        if part.engine != "spark" or getattr(part.handle, "context", None) is not context:
            raise ConfigurationError(
                "a native partition must be of an RDD of the executor's own SparkContext, "
                f"got engine {part.engine!r} with a {type(part.handle).__name__}; "
                f"use backend={part.engine!r}, or the session that made it"
            )
    first = {}
    total = 0
    for rdd in rdds:
        first[id(rdd)] = total
        total += rdd.getNumPartitions()
    joined = rdds[0] if len(rdds) == 1 else context.union(rdds)
    partitions = [first[id(part.handle)] + part.index for part in parts]
    places = {partition: place for place, partition in enumerate(sorted(set(partitions)))}
    if len(places) == total:
        return joined, partitions
    return _pruned(joined, list(places)), [places[partition] for partition in partitions]


def _pruned(rdd: RDD[Any], partitions: list[int]) -> RDD[Any]:
    """Return an RDD of these partitions, which ascend, alone.

    A shuffle takes all of an RDD, and PySpark ends a process that has left its partition unread.
    """
    from pyspark import RDD

    context = rdd.context
    jvm: Any = context._jvm
    among = jvm.PythonUtils.toSeq(partitions).toSet()  # Scala's sets are predicates
    pruned = jvm.org.apache.spark.rdd.PartitionPruningRDD.create(rdd._jrdd.rdd(), among)
    return RDD(pruned.toJavaRDD(), context, rdd._jrdd_deserializer)


def run_job(rdd: RDD[Any], partitions: Iterable[int]) -> list[Any]:
    """Return the elements of the given partitions, in that order."""
    with translated():
        return list(rdd.context.runJob(rdd, _pass_on, list(partitions)))


def _pass_on(items: Iterable[Any]) -> Iterable[Any]:
    return items


@contextmanager
def named(context: SparkContext, description: str, tag: str = "") -> Iterator[None]:
    """Describe this thread's jobs in Spark's pages, tag them, and cancel them when the block is left by an error.

    The job group stays the caller's own: notebooks cancel by it.
    """
    tag = tag or f"strombus-{uuid.uuid4().hex}"
    properties = ("spark.job.description", "spark.job.interruptOnCancel")
    before = {key: context.getLocalProperty(key) for key in properties}
    context.addJobTag(tag)
    context.setJobDescription(description)
    context.setInterruptOnCancel(True)
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the first error counts: Spark may be gone
            context.cancelJobsWithTag(tag)
        raise
    finally:
        with suppress(Exception):
            context.removeJobTag(tag)
            for key, value in before.items():
                context.setLocalProperty(key, value)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what Spark raises into Strombus's errors."""
    from py4j.protocol import Py4JError, Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except Py4JJavaError as error:
        raise explain(str(error.java_exception)) from error
    except (Py4JError, PySparkException) as error:
        raise explain(str(error)) from error


def explain(text: str, missing: str = MISSING) -> ExecutorError:
    """Return the error that says what to do about a failed Spark job; `missing` is the advice for lack of Strombus."""
    if "No module named 'strombus'" in text:
        return ExecutorError(f"Strombus cannot be imported on Spark's executors: {missing}")
    if "PYTHON_VERSION_MISMATCH" in text:
        return ExecutorError(
            f"Spark's executors run another Python than the driver's {platform.python_version()}: "
            "set PYSPARK_PYTHON to an interpreter of the same minor version before the session starts"
        )
    if "spark.driver.maxResultSize" in text:
        return ExecutorError(
            f"the results are too large for the driver; raise spark.driver.maxResultSize: {text[:300]}"
        )
    first = text.strip().splitlines()[0] if text.strip() else "no reason given"
    return TaskError(f"a Spark job failed: {first}{advise_on_memory(text)}", None, text)


def advise_on_memory(text: str) -> str:
    """Return what to do about an executor that was killed for its memory; nothing for other failures."""
    if not any(sign in text for sign in KILLED):
        return ""
    return (
        "; it was killed for the memory it took: torch lives outside the executor's heap, give it room with "
        "--conf spark.executor.memoryOverhead=2g (or more)"
    )


def check_workers(context: SparkContext, slots: int | None) -> None:
    """Raise `ExecutorError` that names the hosts where Strombus is missing or of another version."""
    count = slots or max(1, context.defaultParallelism)
    with named(context, "Strombus: check the executors"):
        found = run_job(context.parallelize(range(count), count).mapPartitions(make_probe()), range(count))
    check_probed(found)


def check_probed(found: Iterable[Probed], missing: str = MISSING) -> None:
    """Raise `ExecutorError` that names the hosts where Strombus is missing or of another version."""
    here = importlib.metadata.version("strombus")
    lacking = sorted({f"{host} ({python}: {reason})" for host, python, version, reason in found if not version})
    if lacking:
        raise ExecutorError(f"Strombus cannot be imported on {', '.join(lacking)}: {missing}")
    other = sorted({f"{version} on {host}" for host, _, version, _ in found if version != here})
    if other:
        raise ExecutorError(f"the driver has strombus {here}, but executors have {', '.join(other)}: {missing}")


def make_probe() -> Callable[[Iterable[int]], Iterator[Probed]]:
    """Return a function that travels by value, because it is nested: workers need no Strombus to run it."""

    def probe(items: Iterable[int]) -> Iterator[Probed]:
        import importlib
        import importlib.metadata
        import socket
        import sys
        import time

        time.sleep(0.1)  # keeps this slot busy, so that the next task goes to another one
        for _ in items:
            version, reason = "", ""
            try:
                importlib.import_module("strombus")
                version = importlib.metadata.version("strombus")
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
            yield socket.gethostname(), sys.executable, version, reason

    return probe
