"""Bring data into Zarr, for good or for the time of a fit, and check it: jobs on an executor."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from tqdm import tqdm

from strombus.data import (
    ArraySource,
    KeyedRows,
    LocalStream,
    Manifest,
    NativeCollection,
    Source,
    ValidationReport,
    open_dataset,
    open_source,
    read_batches,
    store,
)
from strombus.data.dl4j_files import holds_dl4j
from strombus.data.dl4j_validation import check_files, validate_files
from strombus.data.manifest import is_finished, write_manifest
from strombus.data.native import count_rows
from strombus.data.rows import Rows, load_cell
from strombus.data.validation import Shapes, check_part, validate_dataset
from strombus.data.writer import ExportSettings, Written, export_partition, manifest_of, remove_others, write_parts
from strombus.errors import ConfigurationError, DataError, ExecutorError, UnfinishedExportError
from strombus.executors.base import Executor

__all__ = [
    "check_shared",
    "check_target",
    "export",
    "readable_source",
    "resolved",
    "resumable_export",
    "temporary_export",
    "validate",
]

logger = logging.getLogger(__name__)


def export(
    data: Any,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    backend: Any = "auto",
    executor: Executor | None = None,
    overwrite: bool = False,
    progress: bool = True,
    features: str | Sequence[str] = "features",
    label: str | Sequence[str] | None = "label",
) -> Manifest:
    """Write data as a dataset of Zarr v3 shards, every row once and in order.

    Parameters
    ----------
    data : object
        Everything `strombus.data.open_source` takes. Bags, dask arrays, RDDs and distributed DataFrames are
        written by the workers in parallel, everything else by this process in the memory of about one part.
    path : path or URI
        The dataset's root; workers must reach it.
    batch_size : int
        Parts and chunks hold a multiple of it. Any batch size can be read later; this one reads fastest.
    backend, executor
        Where partitions are written: an open `Executor`, or what ``strombus.Trainer`` takes as backend.
    overwrite : bool
        Replace a dataset that is there; it stays readable until the new one is complete.
    progress : bool
        Show a bar on a terminal.
    features, label : str or list of str
        Columns of a DataFrame or of Parquet files; a `strombus.data.table` has named its own, and keeps its keys.

    Returns
    -------
    Manifest

    Raises
    ------
    DataError
        When there are no rows, rows do not go together, or a dataset is there already.
    TaskError
        When a partition cannot be computed or written. What was written is removed.

    Notes
    -----
    DL4J's ``BatchAndExportDataSetsFunction`` drops rows when an object is larger than the batch; none is lost here.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
    source = open_source(data, features=features, label=label)
    uri = store.normalise(path)
    check_target(uri, overwrite)
    settings = ExportSettings(uri, secrets.token_hex(3), batch_size)
    kept: Manifest | None = None
    try:
        manifest = manifest_of(_written(source, settings, backend, executor, progress))
        write_manifest(uri, manifest)
        kept = manifest
    finally:
        # After a failure nothing of this export stays; after a success, no part of an attempt that lost its race.
        remove_others(uri, kept, settings.export)
    if overwrite:
        remove_others(uri, manifest)
    return manifest


def check_target(uri: str, overwrite: bool) -> None:
    """Raise a `DataError` when something is there that must not be replaced."""
    if overwrite:
        return
    if is_finished(uri):
        raise DataError(
            f"{uri} holds data already; take another path, or give overwrite=True (--overwrite) to replace it"
        )
    if any(name.startswith("part-") for name in store.children(uri)):
        raise UnfinishedExportError(
            f"{uri} holds parts of an export that did not finish, or that still runs; take another path, or give "
            f"overwrite=True (--overwrite) to replace it"
        )


def _written(
    source: Any, settings: ExportSettings, backend: Any, executor: Executor | None, progress: bool
) -> list[Written]:
    if not isinstance(source, NativeCollection):
        total = source.rows if isinstance(source, Source) else None
        with tqdm(total=total, unit=" rows", desc="export", disable=None if progress else True) as bar:
            objects = _objects(source) if isinstance(source, Source) else source.whole()
            return [
                write_parts(objects, settings.uri, settings.export, batch_size=settings.batch_size, on_rows=bar.update)
            ]
    with resolved(backend if executor is None else executor, source.engine) as runner:
        return _parallel(source, settings, runner, progress)


def _parallel(source: NativeCollection, settings: ExportSettings, runner: Executor, progress: bool) -> list[Written]:
    parts = source.objects() if source.keyed else source.partitions()
    shared = runner.share(settings)
    try:
        results = runner.map(export_partition, parts, shared)
        return list(tqdm(results, total=len(parts), desc="export", disable=None if progress else True))
    finally:
        shared.free()


@contextmanager
def resolved(backend: Any, engine: str | None = None) -> Iterator[Executor]:
    """Open an executor; close it unless it was the caller's."""
    if isinstance(backend, Executor):
        yield backend
        return
    from strombus.executors import resolve

    with closing(resolve("spark" if backend == "auto" and (engine or "").startswith("spark") else backend)) as runner:
        yield runner


def _objects(source: Source) -> Iterator[Rows | KeyedRows]:
    keyed, start = source.keyed, 0
    order = source.order(seed=0, epoch=0, shuffle=False)
    sizes = [window.rows for window in order]
    with read_batches(source, order, 0, source.rows, sizes, seed=0, epoch=0, shuffle=False, prefetch=1) as batches:
        for rows in batches:
            yield KeyedRows(source.read_keys(start, start + rows.examples), rows) if keyed else rows
            start += rows.examples


@contextmanager
def temporary_export(
    data: Any,
    executor: Executor,
    *,
    directory: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> Iterator[Source]:
    """Export data for the time of a ``with`` block, and remove all of it afterwards, also after errors.

    Parameters
    ----------
    directory : path or URI, optional
        Shared storage; by default this machine's directory for temporary files.

    Raises
    ------
    ExecutorError
        When a worker cannot read what the driver writes there; names the host.
    """
    base = store.normalise(directory if directory is not None else tempfile.gettempdir())
    uri = store.join(base, f"strombus-{secrets.token_hex(8)}")
    try:
        check_shared(uri, executor)
        export(data, store.join(uri, "data.zarr"), batch_size=batch_size, executor=executor, progress=progress)
        yield open_dataset(store.join(uri, "data.zarr"))
    finally:
        store.remove(uri)


@contextmanager
def resumable_export(data: Any, executor: Executor, uri: str, *, batch_size: int = 32) -> Iterator[Source]:
    """Export data to `uri`, where it stays until a ``with`` block has ended well: one that is whole there is used.

    So whoever goes on after an error or a loss of power has the same rows in the same order, also where `data` would
    come in another.

    Raises
    ------
    ExecutorError
        As `temporary_export`.
    """
    target = store.join(uri, "data.zarr")
    check_shared(uri, executor)
    if is_finished(target):
        logger.info("the rows are those that were exported to %s when the run began", uri)
    else:
        export(data, target, batch_size=batch_size, executor=executor, overwrite=True, progress=False)
    yield open_dataset(target)
    store.remove(uri)


def check_shared(uri: str, executor: Executor) -> None:
    """Write a secret and have every slot read it: a directory of the same name on another machine is not enough."""
    nonce = secrets.token_hex(16)
    store.write_text(store.join(uri, "nonce"), nonce)
    slots = executor.capacity().slots or 1
    for host, found in executor.map(_read_nonce, [uri] * slots):
        if found != nonce:
            raise ExecutorError(
                f"the directory {uri} is not shared by the worker on {host}: it cannot read there what the driver "
                f"wrote; give export_directory on storage that every worker reaches, or use the Direct approach"
            )


def _read_nonce(_shared: None, uri: str) -> tuple[str, str]:
    try:
        return socket.gethostname(), store.read_text(store.join(uri, "nonce"))
    except Exception as error:
        return socket.gethostname(), f"{type(error).__name__}: {error}"


@contextmanager
def readable_source(
    data: Any,
    executor: Executor,
    *,
    export: bool = True,
    directory: str | os.PathLike[str] | None = None,
    keep: str | None = None,
    batch_size: int = 32,
    features: str | Sequence[str] = "features",
    label: str | Sequence[str] | None = "label",
) -> Iterator[Source]:
    """Give data as a `Source` that every worker can read, for the time of a ``with`` block.

    Parameters
    ----------
    export : bool
        How what is not readable everywhere becomes so: True writes it to `directory` for the time (DL4J: the
        Export approach); False gathers it in this process's memory and sends it along (small data).
    keep : path or URI, optional
        Where to write instead, for an export that an error or a loss of power must outlast (`resumable_export`).
    """
    source = open_source(data, features=features, label=label)
    if isinstance(source, Source):
        yield source
    elif export and keep is not None:
        with resumable_export(source, executor, keep, batch_size=batch_size) as exported:
            yield exported
    elif export:
        with temporary_export(source, executor, directory=directory, batch_size=batch_size) as exported:
            yield exported
    elif isinstance(source, LocalStream):
        yield ArraySource.collect(source.whole())
    else:
        yield ArraySource.collect(rows for rows in executor.map(_gathered, source.partitions()) if rows is not None)


def _gathered(_shared: None, partition: Any) -> Rows | None:
    objects = list(partition) if isinstance(partition, Iterator) else partition
    return load_cell(objects) if count_rows(None, objects) else None


def validate(
    path: str | os.PathLike[str],
    *,
    features_shape: Shapes | None = None,
    labels_shape: Shapes | None = None,
    quarantine: bool = False,
    backend: Any = "local",
    progress: bool = False,
) -> ValidationReport:
    """Read all of a dataset and say what is wrong with it (DL4J: ``SparkDataValidation``).

    Parameters
    ----------
    path : path or URI
        A finished dataset; or a directory of files that DL4J saved, or one of them.
    features_shape, labels_shape : sequence of int, optional
        Wanted shapes, examples first; entries of 0 or less stand for anything. Of a dataset of `MultiDataSet` a
        sequence of them, one for each array, None for any; a single shape is that of the first array.
    quarantine : bool
        Take bad parts out of the manifest and move them to ``quarantine/`` inside the dataset; bad files too.
    backend
        Where the parts are read.
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    ValidationReport
    """
    uri = store.normalise(path)
    task, validates = (check_files, validate_files) if holds_dl4j(uri) else (check_part, validate_dataset)
    with resolved(backend) as runner:

        def run(expected: Any, parts: Sequence[Any]) -> Iterator[Any]:
            shared = runner.share(expected)
            try:
                results = runner.map(task, list(parts), shared)
                yield from tqdm(results, total=len(parts), desc="validate", disable=None if progress else True)
            finally:
                shared.free()

        return validates(uri, run, features_shape=features_shape, labels_shape=labels_shape, quarantine=quarantine)
