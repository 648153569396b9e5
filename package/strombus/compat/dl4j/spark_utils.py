"""DL4J's helpers around RDDs and files, for Spark's RDDs and those of a `DaskSparkContext` alike."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np

from strombus.compat.dl4j.enumerations import Repartition, RepartitionStrategy
from strombus.compat.dl4j.safe_files import read_object, write_object
from strombus.data import rebatch, store
from strombus.data.rows import iterate_rows
from strombus.errors import ConfigurationError
from strombus.files import open_storage

__all__ = ["SparkUtils"]


class SparkUtils:
    """Repartition and split RDDs, shuffle their examples, list, read and write files.

    An RDD is Spark's or that of a `DaskSparkContext`; a path is a local one or a URI that fsspec knows. Whatever
    is random takes a seed, and is the same on every run.
    """

    # -- partitions ------------------------------------------------------------------------------

    @staticmethod
    def repartition(
        rdd: Any,
        repartition: Repartition | str,
        repartitionStrategy: RepartitionStrategy | str,
        objectsPerPartition: int,
        numPartitions: int,
    ) -> Any:
        """Return the RDD in `numPartitions` partitions, or as it is where `repartition` says so.

        "SparkDefault" leaves the work to the engine. The other two cut contiguous partitions whose sizes differ by
        one object at most, so that `objectsPerPartition` decides nothing: DL4J fills partitions one by one, and
        leaves the last ones empty where there is too little data.
        """
        how = RepartitionStrategy.valueOf(repartitionStrategy)
        if how is not RepartitionStrategy.SparkDefault:
            return SparkUtils.repartitionEqually(rdd, repartition, numPartitions)
        return rdd.repartition(numPartitions) if _wanted(rdd, repartition, numPartitions) else rdd

    @staticmethod
    def repartitionEqually(rdd: Any, repartition: Repartition | str, numPartitions: int) -> Any:
        """Return the RDD in contiguous partitions whose sizes differ by one object at most."""
        if not _wanted(rdd, repartition, numPartitions):
            return rdd
        total = rdd.count()
        return _placed(rdd, numPartitions, partial(_even, total, numPartitions))

    @staticmethod
    def repartitionBalanceIfRequired(
        rdd: Any, repartition: Repartition | str, objectsPerPartition: int, numPartitions: int
    ) -> Any:
        """Return `repartitionEqually`: see `repartition` for `objectsPerPartition`."""
        return SparkUtils.repartitionEqually(rdd, repartition, numPartitions)

    @staticmethod
    def repartitionApproximateBalance(rdd: Any, repartition: Repartition | str, numPartitions: int) -> Any:
        """Return `repartitionEqually`, which is exact."""
        return SparkUtils.repartitionEqually(rdd, repartition, numPartitions)

    @staticmethod
    def balancedRandomSplit(totalObjectCount: int, numObjectsPerSplit: int, data: Any, seed: int = 0) -> list[Any]:
        """Return RDDs of about `numObjectsPerSplit` objects each, drawn at random; every object is in one of them.

        Their sizes differ by one object at most. The driver sends 8 bytes for each object.
        """
        if numObjectsPerSplit < 1:
            raise ConfigurationError(f"numObjectsPerSplit must be at least 1, got {numObjectsPerSplit}")
        splits = max(1, totalObjectCount // numObjectsPerSplit)
        split_of = np.random.default_rng(seed).permutation(totalObjectCount) % splits
        numbered = data.zipWithIndex()
        return [numbered.filter(partial(_is_in, split_of, split)).map(_object) for split in range(splits)]

    @staticmethod
    def shuffleExamples(rdd: Any, newBatchSize: int, numPartitions: int, seed: int = 0) -> Any:
        """Return objects of `newBatchSize` examples, drawn at random from all of them; a partition's last is short."""
        keyed = rdd.mapPartitionsWithIndex(partial(_random_rows, seed, numPartitions))
        return keyed.partitionBy(numPartitions, _same).mapPartitionsWithIndex(partial(_shuffled, seed, newBatchSize))

    @staticmethod
    def indexedRDD(rdd: Any) -> Any:
        """Return pairs of each object's place and the object."""
        return rdd.zipWithIndex().map(_swapped)

    # -- files -----------------------------------------------------------------------------------

    @staticmethod
    def listPaths(sc: Any, path: str, recursive: bool = False, extensions: Iterable[str] | None = None) -> Any:
        """Return the files of a folder, sorted, as an RDD of paths.

        Parameters
        ----------
        sc : SparkContext or DaskSparkContext
        path : str
            Folder or URI, as the driver sees it.
        recursive : bool
            Look into folders within it too.
        extensions : iterable of str, optional
            Endings such as ``"csv"``; all files by default.
        """
        return sc.parallelize(list_files(path, recursive, extensions))

    @staticmethod
    def writeStringToFile(path: str, toWrite: str, sc: Any = None) -> None:
        """Write a text as UTF-8; `sc` is not needed."""
        store.write_text(store.normalise(path), toWrite)

    @staticmethod
    def readStringFromFile(path: str, sc: Any = None) -> str:
        """Read a text in UTF-8; `sc` is not needed."""
        return store.read_text(store.normalise(path))

    @staticmethod
    def writeObjectToFile(path: str, toWrite: Any, sc: Any = None) -> None:
        """Write an array, a data set, an evaluation, a master, statistics or plain values; `sc` is not needed.

        Nothing that is read back can run code, so that other objects are refused; see `safe_files.write_object`.
        """
        write_object(path, toWrite)

    @staticmethod
    def readObjectFromFile(path: str, type: type, sc: Any = None) -> Any:
        """Read what `writeObjectToFile` wrote as an instance of `type`; `sc` is not needed."""
        return read_object(path, type)

    # -- engines ---------------------------------------------------------------------------------

    @staticmethod
    def checkKryoConfiguration(javaSparkContext: Any = None, log: Any = None) -> bool:
        """Return True: there is no Kryo, and what passes between processes has one format that needs no setting."""
        return True

    @staticmethod
    def getSparkExecutorId() -> str:
        """Return what tells this process from others, as events in the training statistics do: ``"host:pid"``."""
        return f"{socket.gethostname()}:{os.getpid()}"

    @staticmethod
    def asByteArrayBroadcast(sc: Any, array: Any) -> Any:
        """Return the broadcast bytes of an array, in numpy's format: ``np.load(BytesIO(broadcast.value))``."""
        buffer = BytesIO()
        np.save(buffer, np.asarray(array), allow_pickle=False)
        return sc.broadcast(buffer.getvalue())


def list_files(path: str, recursive: bool, extensions: Iterable[str] | None) -> list[str]:
    """Return the sorted paths of the files in a folder; ConfigurationError where it is none."""
    system, root = open_storage(store.normalise(path))
    if not system.isdir(root):
        raise ConfigurationError(f"{path} is no folder that this process can list")
    found: Sequence[str] = sorted(system.find(root, maxdepth=None if recursive else 1))
    endings = None if extensions is None else tuple(f".{ending.lstrip('.')}" for ending in extensions)
    kept = [one for one in found if endings is None or one.endswith(endings)]
    return kept if store.is_local(store.normalise(path)) else [system.unstrip_protocol(one) for one in kept]


def _wanted(rdd: Any, repartition: Repartition | str, partitions: int) -> bool:
    """Say whether the RDD is to be cut anew."""
    if partitions < 1:
        raise ConfigurationError(f"numPartitions must be at least 1, got {partitions}")
    when = Repartition.valueOf(repartition)
    return when is Repartition.Always or (
        when is Repartition.NumPartitionsWorkersDiffers and rdd.getNumPartitions() != partitions
    )


def _placed(rdd: Any, partitions: int, place: Callable[[int], int]) -> Any:
    """Move objects to the partition that their index says, in order within each."""
    return SparkUtils.indexedRDD(rdd).partitionBy(partitions, place).mapPartitions(_in_order)


# What follows runs on the workers, and is found there by name.


def _even(total: int, partitions: int, index: int) -> int:
    return index * partitions // total


def _in_order(pairs: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    return (item for _, item in sorted(pairs, key=_key))


def _key(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _swapped(pair: tuple[Any, int]) -> tuple[int, Any]:
    return pair[1], pair[0]


def _object(pair: tuple[Any, int]) -> Any:
    return pair[0]


def _same(number: int) -> int:
    return number


def _is_in(split_of: Any, split: int, pair: tuple[Any, int]) -> bool:
    return bool(split_of[pair[1]] == split)


def _random_rows(seed: int, partitions: int, number: int, objects: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Yield each row, as an object of one, with the partition that it goes to."""
    random = np.random.default_rng([seed, number])
    for item in iterate_rows(objects):
        targets = random.integers(partitions, size=item.examples)
        yield from ((int(target), item[row : row + 1]) for row, target in enumerate(targets))


def _shuffled(seed: int, rows: int, number: int, pairs: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    # An engine's shuffle brings rows in any order: what they hold decides, so that a seed gives one result.
    found = sorted((item for _, item in pairs), key=_content)
    order = np.random.default_rng([seed, 1, number]).permutation(len(found))
    return rebatch((found[place] for place in order), rows)


def _content(item: Any) -> bytes:
    return b"".join(np.ascontiguousarray(array).tobytes() for array in item.columns().values())
