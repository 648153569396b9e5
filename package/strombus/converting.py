"""Convert DL4J's exported directories to a dataset: a job on an executor that may be cut off and run again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from strombus.data import store
from strombus.data.conversion import (
    ConversionSettings,
    Converted,
    Inventory,
    Load,
    Skipped,
    convert_load,
    plan_loads,
    read_converted,
)
from strombus.data.dl4j_files import find_all, first_layout
from strombus.data.dl4j_source import warn_of_metadata
from strombus.data.manifest import JOURNAL, is_finished, write_manifest
from strombus.data.rows import Layout
from strombus.data.stored import StoredFile
from strombus.data.writer import manifest_of, remove_others
from strombus.errors import ConfigurationError, DataError, EmptyDataError, TaskError
from strombus.executors.base import Executor
from strombus.exporting import check_target, resolved

__all__ = ["import_dl4j"]


def import_dl4j(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    bad_files: str = "stop",
    backend: Any = "auto",
    executor: Executor | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Inventory:
    """Write what DL4J saved as a dataset of Zarr v3 shards: every row of every file once, in order.

    Parameters
    ----------
    source : path, URI or sequence of them
        Directories of ``DataSet.save`` or ``MultiDataSet.save`` files (``*.bin``), or such files.
    path : path or URI
        The dataset's root; workers must reach both.
    batch_size : int
        Parts and chunks hold a multiple of it. Any batch size can be read later; this one reads fastest.
    bad_files : {"stop", "list"}
        Whether a file that is damaged, or unlike the first, ends the import, or is left out and listed.
    backend, executor
        Where files are converted: an open `Executor`, or what ``strombus.Trainer`` takes as backend.
    overwrite : bool
        Replace a dataset that is there; it stays readable until the new one is complete.
    progress : bool
        Show a bar on a terminal.

    Returns
    -------
    Inventory

    Raises
    ------
    DataError
        A file cannot be used: named, with the byte and the reason. Or a dataset is there already.
    TaskError
        Something else failed on a worker.

    Notes
    -----
    What an import that was cut off has done is kept: the same call goes on with the rest. Until the last row is
    there, nothing reads the target as data.
    """
    if batch_size < 1 or bad_files not in {"stop", "list"}:
        raise ConfigurationError(
            f"batch_size must be at least 1 and bad_files 'stop' or 'list', got {batch_size} and {bad_files!r}"
        )
    uri = store.normalise(path)
    uris = [store.normalise(one) for one in ([source] if isinstance(source, str | os.PathLike) else source)]
    if uri in uris:
        raise ConfigurationError(f"{uri} cannot be the source and the target; name another target")
    if is_finished(uri) or JOURNAL not in store.children(uri):
        check_target(uri, overwrite)
    files, others = find_all(uris)
    layout, first = _first(files, bad_files == "list")
    settings = ConversionSettings(uri, secrets.token_hex(3), batch_size, layout, first, bad_files == "list")
    loads = plan_loads(files, settings)
    try:
        with resolved(backend if executor is None else executor) as runner:
            converted = list(_converted(loads, settings, runner, progress))
    except TaskError as error:
        if not isinstance(error.__cause__, DataError):
            raise
        raise _advised(error.__cause__) from error
    return _published(uri, converted, others, sum(file.size for file in files))


def _advised(error: DataError) -> DataError:
    """Return a bad file's error, said alike wherever it was met, with what else may be done."""
    return DataError(f"{error}; bad_files='list' (--bad-files list) leaves such files out, and lists them")


def _first(files: Sequence[StoredFile], keep_going: bool) -> tuple[Layout, str]:
    """Return the layout that all files must agree with, and the file it is from."""
    try:
        return first_layout(files, keep_going)
    except EmptyDataError:
        raise
    except DataError as error:
        raise _advised(error) from error


def _converted(
    loads: Sequence[Load], settings: ConversionSettings, runner: Executor, progress: bool
) -> Iterator[Converted]:
    """Yield what became of each load, in order; those that an earlier run has done are taken as they are."""
    done = _done(loads, settings)
    shared = runner.share(settings)
    bar = tqdm(
        total=sum(load.size for load in loads),
        unit="B",
        unit_scale=True,
        desc="import-dl4j",
        disable=None if progress else True,
    )
    try:
        results = runner.map(convert_load, [load for load in loads if load.key not in done], shared)
        for load in loads:
            yield done[load.key] if load.key in done else next(results)
            bar.update(load.size)
    finally:
        bar.close()
        shared.free()


def _done(loads: Sequence[Load], settings: ConversionSettings) -> dict[str, Converted]:
    names = set(store.children(settings.uri))
    if JOURNAL not in names:
        return {}
    found = ((load.key, read_converted(settings.uri, load, names)) for load in loads)
    return {key: one for key, one in found if one is not None and (settings.keep_going or not one.bad)}


def _published(uri: str, converted: Sequence[Converted], others: Sequence[str], size: int) -> Inventory:
    """Make the parts a dataset, once all of them are there."""
    manifest = manifest_of(one.written for one in converted)
    there = set(store.children(uri))
    if lost := [part.name for part in manifest.parts if part.name not in there]:
        raise DataError(
            f"{uri} has lost {', '.join(lost[:3])} while it was written: is another import at work there? Run it again"
        )
    write_manifest(uri, manifest)
    remove_others(uri, manifest)
    store.remove(store.join(uri, JOURNAL))
    skipped = [one for load in converted for one in load.skipped]
    skipped += [Skipped(name, "not called *.bin") for name in others]
    metadata = sum(one.metadata for one in converted)
    warn_of_metadata(metadata)
    return Inventory(
        files=sum(one.files for one in converted),
        examples=manifest.examples,
        parts=len(manifest.parts),
        kind=manifest.kind,
        columns=dict(manifest.columns),
        skipped=tuple(skipped),
        metadata=metadata,
        size=size,
    )
