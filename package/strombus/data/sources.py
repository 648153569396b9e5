"""Everything users may hand over as data, brought to one of three forms."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from strombus.data import dask_source, spark_source
from strombus.data.columns import default_columns
from strombus.data.native import NativeCollection
from strombus.data.opening import open_dataset
from strombus.data.rows import as_rows
from strombus.data.source import ArraySource, Source, Transform, check_function
from strombus.data.streams import Examples, LocalStream, Stream, is_maker
from strombus.data.table import open_frame
from strombus.errors import DataError, kind_of
from strombus.types import DataSet, MultiDataSet

__all__ = ["NativeCollection", "open_source"]

ACCEPTED = (
    "a path or URI of a dataset or a list of them, a Source, a DataSet or MultiDataSet, (features, labels) as numpy, "
    "torch or dask arrays, a torch Dataset or DataLoader, an iterable of DataSet, MultiDataSet or (features, labels) "
    "batches, a function that makes one, a dask Bag or Spark RDD of them, a pandas, Dask or Spark DataFrame"
)


def open_source(
    data: Any,
    *,
    transform: Transform | None = None,
    features: str | Sequence[str] = "features",
    label: str | Sequence[str] | None = "label",
) -> Source | LocalStream | NativeCollection:
    """Find out what `data` is.

    Parameters
    ----------
    data : object
        A path or URI or a list of them, a `Source`, a `DataSet` or `MultiDataSet`, (features, labels) arrays,
        a torch Dataset or DataLoader, an iterable of objects or a function that makes one, a dask Bag, dask
        arrays, a Spark RDD, a DataFrame.
    transform : callable, optional
        For paths and arrays, see `open_dataset`; for what the calling process reads once, or an engine computes, an
        error.
    features, label : str or list of str
        Columns of a DataFrame or of Parquet files, see `table`, which takes weights and keys too; a column ``label``
        may be missing.

    Returns
    -------
    Source or LocalStream or NativeCollection
        Readable everywhere; in this process alone; in an engine.

    Raises
    ------
    MissingDataError
        When a path leads nowhere.
    DataError
        When `data` is nothing of the above; lists what is accepted.
    """
    check_function("transform", transform)
    if isinstance(data, Source | LocalStream | NativeCollection):
        return data
    if isinstance(data, str | os.PathLike) or (isinstance(data, list | tuple) and data and _all_paths(data)):
        return open_dataset(data, transform, features=features, label=label)
    if isinstance(data, DataSet | MultiDataSet):
        return ArraySource(data, transform)
    if (frame := open_frame(data, lambda there: default_columns(features, label, there), transform)) is not None:
        return frame
    found = _native(data)
    opened = found if found is not None else _local(data, transform)
    if transform is not None and not isinstance(opened, Source):
        raise DataError(
            "a transform is for data that workers read: wanted paths, arrays or strombus.data.examples(...), got "
            f"{kind_of(data)}; map it yourself, or export it and give open_dataset the transform"
        )
    return opened


def _all_paths(items: Sequence[Any]) -> bool:
    return all(isinstance(item, str | os.PathLike) for item in items)


def _is(data: Any, module: str, name: str) -> bool:
    """Check for a class of a library without importing the library: who has such an object has imported it."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(data, kind)


def _native(data: Any) -> NativeCollection | None:
    if _is(data, "dask.bag", "Bag"):
        return dask_source.from_bag(data)
    if hasattr(type(data), "toBag"):  # an RDD on Dask
        return dask_source.from_bag(data.toBag(), data.context.fromBag)
    arrays = data if isinstance(data, tuple) else (data,)
    if any(_is(array, "dask.array", "Array") for array in arrays):
        return dask_source.from_arrays(arrays)
    if _is(data, "pyspark", "RDD"):
        return spark_source.from_rdd(data)
    return None


def _local(data: Any, transform: Transform | None) -> Source | LocalStream:
    if isinstance(data, tuple) and data and not isinstance(data[0], DataSet | MultiDataSet):
        return ArraySource(as_rows(data), transform)
    if isinstance(data, np.ndarray) or _is(data, "torch", "Tensor"):
        return ArraySource(DataSet(data), transform)
    if _is(data, "torch.utils.data", "IterableDataset") or is_maker(data):
        return Stream(data)
    if _is(data, "torch.utils.data", "Dataset"):
        return LocalStream(Examples(data))
    if isinstance(data, Iterable) and not isinstance(data, bytes | dict | set):
        return LocalStream(data)
    raise DataError(f"data must be {ACCEPTED}; got {type(data).__module__}.{type(data).__qualname__}")
