"""Fit a normalizer where the data lies, and keep it in a file: a job on an executor, and two functions for files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import IO, Any

import fsspec
import numpy as np

from strombus.data import ArraySource, LocalStream, NativeCollection, Source, open_source
from strombus.documents import DocumentError, parse_json
from strombus.errors import DataError, EmptyDataError, MissingDataError
from strombus.exporting import resolved
from strombus.files import write_whole
from strombus.interchange.dl4j.archive import NORMALIZER, Archive
from strombus.interchange.dl4j.normalizers import MAGIC, read_normalizer, write_normalizer
from strombus.normalizers import Gathered, Normalizer
from strombus.types import Partition
from strombus.worker.normalizing import NormalizingWork, gather_part, merge_gathered

__all__ = ["gather", "load_normalizer", "save_normalizer"]

LONGEST = 1 << 28
"""Bytes of a normalizer's file; one of a million features has about 40 million."""


def gather(normalizer: Normalizer, data: Any, *, backend: Any = "auto") -> Gathered:
    """Return the statistics of `data`; see `strombus.normalizers.Normalizer.fit`.

    Raises
    ------
    EmptyDataError
        When there are no rows.
    DataError
        When all steps are masked, labels are missing, or parts do not go together.
    """
    source = open_source(data)
    if isinstance(source, LocalStream):
        found: Gathered = {}
        for rows in source:
            found = merge_gathered(found, normalizer.gather(rows))
    elif isinstance(source, ArraySource):
        found = gather_part(NormalizingWork(normalizer, source), Partition(0, 0, source.rows)) if source.rows else {}
    else:
        found = _on_workers(normalizer, source, backend)
    _check_complete(normalizer, found)
    return found


def _on_workers(normalizer: Normalizer, source: Source | NativeCollection, backend: Any) -> Gathered:
    rows, engine = (source, None) if isinstance(source, Source) else (None, source.engine)
    with resolved(backend, engine) as runner:
        parts: Sequence[Any] = (
            _spans(source, 4 * (runner.capacity().slots or 1)) if isinstance(source, Source) else source.partitions()
        )
        if not parts:
            return {}
        shared = runner.share(NormalizingWork(normalizer, rows))
        try:
            found: Gathered = runner.map_reduce(gather_part, parts, merge_gathered, shared).get()
        finally:
            shared.free()
    return found


def _spans(source: Source, most: int) -> list[Partition]:
    """Cut the rows at the edges of blocks into `most` parts at most."""
    blocks = source.blocks()
    ends = np.cumsum([0, *(block.rows for block in blocks)])
    count = min(len(blocks), most)
    edges = [int(ends[len(blocks) * number // count]) for number in range(count + 1)] if count else []
    return [Partition(rank, start, stop) for rank, (start, stop) in enumerate(pairwise(edges))]


def _check_complete(normalizer: Normalizer, found: Gathered) -> None:
    if not found:
        raise EmptyDataError("a normalizer needs examples to be fitted to: there are none, or all steps are masked")
    if normalizer.fit_labels and not any(name.startswith("labels") for name in found):
        raise DataError("fit_labels=True needs labels, and the data has none, or all of them are masked")


def save_normalizer(normalizer: Normalizer, path: str | os.PathLike[str], *, dl4j: bool = False) -> None:
    """Write a fitted normalizer to a file, in one piece.

    Parameters
    ----------
    path : path or URI
    dl4j : bool
        Write the file that DL4J's ``NormalizerSerializer`` restores, its statistics as float32, instead of JSON.

    Raises
    ------
    ConfigurationError
        When DL4J has no counterpart.
    """
    write_whole(path, write_normalizer(normalizer) if dl4j else normalizer.to_json().encode())


def load_normalizer(path: str | os.PathLike[str]) -> Normalizer:
    """Read a normalizer: what `save_normalizer` wrote, a file of DL4J's, or the one in a DL4J model's zip.

    Raises
    ------
    MissingDataError
        When there is no such file, or no normalizer in the zip.
    DataError
        When it is none of these, or damaged.
    """
    try:
        with _opened(path) as stream:
            data = _unzipped(stream, str(path)) if stream.read(2) == b"PK" else _all_of(stream, str(path))
    except (FileNotFoundError, IsADirectoryError) as error:
        if isinstance(error, MissingDataError):
            raise
        raise MissingDataError(f"there is no normalizer's file at {path}") from error
    if data.startswith(MAGIC[:2]):
        return read_normalizer(data, str(path))
    try:
        return Normalizer.from_dict(parse_json(data.decode(), LONGEST))
    except (UnicodeDecodeError, DocumentError) as error:
        raise DataError(f"{path} is neither a normalizer's JSON nor a file of DL4J's: {str(error)[:500]}") from None


def _opened(path: str | os.PathLike[str]) -> Any:
    files, target = fsspec.core.url_to_fs(os.fspath(path))
    if not files.isfile(target):
        raise FileNotFoundError(str(path))
    return files.open(target, "rb")


def _all_of(stream: IO[bytes], path: str) -> bytes:
    stream.seek(0)
    found = stream.read(LONGEST + 1)
    if len(found) > LONGEST:
        raise DataError(f"a normalizer in {path} has more than {LONGEST:,} bytes, which is more than one can have")
    return found


def _unzipped(stream: IO[bytes], path: str) -> bytes:
    archive = Archive(stream, path)
    if NORMALIZER not in archive:
        raise MissingDataError(f"there is no {NORMALIZER} in {path}: the model was saved without a normalizer")
    return archive.read(NORMALIZER, LONGEST)
