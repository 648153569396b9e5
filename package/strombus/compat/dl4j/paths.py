"""Paths in any collection, and loaders that read what Strombus does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from strombus.data import NativeCollection, Rows, open_source, store
from strombus.errors import ConfigurationError, MissingDataError
from strombus.executors.base import Executor

__all__ = ["Loader", "each_partition", "from_paths"]

Loader = Callable[[str], Rows]
"""Reads the object at a path."""


def from_paths(paths: Any, loader: Loader | None, executor: Executor) -> Any:
    """Return what lies at paths, as data that the core opens.

    Parameters
    ----------
    paths : path, or list, RDD or Bag of paths
        Without a loader those of Strombus datasets or their parts, which are read as one dataset. With one the path
        of a directory stands for the files in it, those of further directories left out.
    loader : callable, optional
        Called in the tasks, where an engine runs these.
    """
    single = isinstance(paths, str | os.PathLike)
    if loader is None:
        return paths if single else _gathered(paths, executor)
    if not callable(loader):
        raise ConfigurationError(
            f"a loader is a function that reads the DataSet or MultiDataSet at a path, got {type(loader).__name__}"
        )
    return each_partition(_spread(_files(paths) if single else paths, executor), partial(map, loader))


def each_partition(data: Any, function: Callable[[Iterable[Any]], Iterable[Any]]) -> Any:
    """Return, lazily, what `function` makes of each partition of an RDD or a Bag, or of an iterable as a whole."""
    if hasattr(data, "mapPartitions"):
        return data.mapPartitions(function)
    if hasattr(data, "map_partitions"):
        return data.map_partitions(partial(_listed, function))
    return iter(function(data))


def _listed(function: Callable[[Iterable[Any]], Iterable[Any]], objects: Iterable[Any]) -> list[Any]:
    return list(function(objects))


def _gathered(paths: Any, executor: Executor) -> list[str]:
    """Return the paths of a collection; only they pass the driver."""
    collection = None if isinstance(paths, list | tuple) else open_source(paths)
    if not isinstance(collection, NativeCollection):
        return list(paths)
    return [path for part in executor.map(_read_paths, collection.objects()) for path in part]


def _read_paths(_shared: None, paths: Iterable[str]) -> list[str]:
    return list(paths)


def _files(directory: str | os.PathLike[str]) -> Iterator[str]:
    uri = store.normalise(directory)
    found = [store.join(uri, name) for name in store.children(uri)]
    if not found:
        raise MissingDataError(f"there are no files in the directory {uri}, or it cannot be listed")
    return iter(found)


def _spread(paths: Any, executor: Executor) -> Any:
    """Return paths that the driver has as a collection of the engine, so that they are read where they are used."""
    if hasattr(paths, "mapPartitions") or hasattr(paths, "map_partitions"):
        return paths
    listed = list(paths)
    pieces = max(1, min(len(listed), 4 * (executor.capacity().slots or 1)))
    context = getattr(executor, "context", None)
    if executor.name == "spark" and context is not None:
        return context.parallelize(listed, pieces)
    if executor.name == "dask":
        from dask.bag import from_sequence

        return from_sequence(listed, npartitions=pieces)
    return listed
