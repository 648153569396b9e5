"""Many small files as few: DL4J's file batches."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from strombus.compat.dl4j.spark_utils import SparkUtils, list_files
from strombus.data import store
from strombus.errors import ConfigurationError
from strombus.files import open_storage

__all__ = ["SparkDataUtils"]


class SparkDataUtils:
    """Put raw files (images, texts) into zip files of several, for storage that is slow with small files.

    A zip holds ``file_0.png``, ``file_1.png``, ... and ``originalUris.txt``, a line for each. What trains is a
    dataset, which needs none of this: see `strombus.data.export`.
    """

    @staticmethod
    def createFileBatchesLocal(inputDirectory: str | os.PathLike[str], *arguments: Any, seed: int = 0) -> None:
        """Write zips of the files of a folder, in random order; the last one takes the rest.

        Parameters
        ----------
        inputDirectory : path or URI
        *arguments
            As in DL4J: optionally the endings of the files to take; whether to look into folders within it; the
            folder for the zips; and how many files a zip has.
        seed : int
            One seed gives one order.
        """
        if len(arguments) not in (3, 4):
            raise ConfigurationError("createFileBatchesLocal needs (folder, [endings,] recursive, target, batch size)")
        recursive, target, size = arguments[-3:]
        files = list_files(os.fspath(inputDirectory), recursive, arguments[0] if len(arguments) == 4 else None)
        order = np.random.default_rng(seed).permutation(len(files))
        _write_zips(os.fspath(target), _checked(size), 0, (files[place] for place in order))

    @staticmethod
    def createFileBatchesSpark(filePaths: Any, rootOutputDir: str, batchSize: int, sc: Any = None) -> None:
        """Write zips of the files whose paths an RDD holds, each partition by itself; `sc` is not needed.

        Partitions are made even first, so that few zips are short.
        """
        size = _checked(batchSize)
        partitions = max(1, min(filePaths.getNumPartitions(), filePaths.count() // size))
        even = SparkUtils.repartitionEqually(filePaths, "Always", partitions)
        even.mapPartitionsWithIndex(partial(_write_zips, rootOutputDir, size)).count()


def _checked(size: int) -> int:
    if size < 1:
        raise ConfigurationError(f"a file batch needs at least 1 file, got {size}")
    return size


def _write_zips(root: str, size: int, number: int, paths: Iterable[str]) -> list[str]:
    """Write the zips of one partition and return their paths."""
    uri = store.normalise(root)
    system, folder = open_storage(uri)
    system.makedirs(folder, exist_ok=True)
    written = []
    for count, batch in enumerate(_batches(list(paths), size)):
        written.append(f"{folder}/batch_{number:05d}_{count:05d}.zip")
        system.pipe_file(written[-1], _zipped(batch))
    return written


def _batches(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _zipped(paths: Sequence[str]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("originalUris.txt", "\n".join(paths))
        for number, path in enumerate(paths):
            system, source = open_storage(store.normalise(path))
            file.writestr(f"file_{number}{PurePosixPath(path).suffix or '.bin'}", system.cat_file(source))
    return buffer.getvalue()
