"""Tables as data: DataFrames of pandas, Dask and Spark, and Parquet files, by the names of their columns."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from strombus.data import dask_source, spark_connect_source, spark_source, store
from strombus.data.columns import Name, TableColumns
from strombus.data.frames import check_frame, frame_rows, keyed_frame_rows
from strombus.data.native import NativeCollection
from strombus.data.parquet_source import open_parquet
from strombus.data.source import ArraySource, Source, Transform, check_function
from strombus.errors import DataError, kind_of

__all__ = ["open_frame", "table"]


def table(
    data: Any,
    features: Name | Sequence[Name],
    label: Name | Sequence[Name] | None = None,
    weight: Name | None = None,
    key: Name | None = None,
    *,
    dtype: Any = None,
    transform: Transform | None = None,
) -> Source | NativeCollection:
    """Take columns of a table as data.

    Parameters
    ----------
    data : DataFrame of pandas, Dask or Spark; path or URI of a Parquet file or of a directory of them; list of these
        A pandas DataFrame is sent whole to the workers. Partitions of Dask and Spark, and row groups of Parquet files,
        are read by them.
    features : str or list of str
        Columns of numbers, lists of numbers (of one length, fixed-size lists among them) or Spark's vectors. Those of
        several columns stand one after the other in a row. One column may hold nested lists.
    label : str or list of str, optional
        A name is a column as it is, such as class numbers. A list, of one name too, makes rows of values, such as for
        regression, or for classes as ones and zeros.
    weight : str, optional
        A column of one number of 0 or more for each row, its weight in the loss and in metrics.
    key : str, optional
        A column of numbers or strings. Training does not look at it; `Trainer.score_examples` and
        `Trainer.feed_forward_with_key` give it back with what they found.
    dtype : dtype, optional
        What features become. By default they keep their columns' common type, in which integers are indices, for an
        embedding: give ``"float32"`` where integers are quantities.
    transform : callable, optional
        For pandas and Parquet, see `open_dataset`.

    Returns
    -------
    Source or NativeCollection
        Taken wherever data is taken.

    Raises
    ------
    DataError
        When a column is missing, or its type says that it holds no numbers: names the column and how to encode it.
        Values that are missing and rows of different shapes are found where they are read, and named with their place.
    MissingDataError, EmptyDataError
        When there is no Parquet file, or none with a row.

    Examples
    --------
    >>> rows = table("clicks.parquet", features=["age", "visits"], label="bought", key="id")  # doctest: +SKIP
    >>> trainer.fit(rows, epochs=3)  # doctest: +SKIP
    """
    check_function("transform", transform)
    columns = TableColumns.of(features, label, weight, key, dtype)
    if _are_paths(data):
        paths = [data] if isinstance(data, str | os.PathLike) else data
        return open_parquet([store.normalise(path) for path in paths], columns, transform)
    found = open_frame(data, lambda _: columns, transform)
    if found is None:
        raise DataError(
            f"a table is a pandas, Dask or Spark DataFrame, or the path of Parquet files; got {kind_of(data)}"
        )
    return found


def _are_paths(data: Any) -> bool:
    items = data if isinstance(data, list | tuple) and data else [data]
    return all(isinstance(item, str | os.PathLike) for item in items)


def open_frame(
    data: Any, choose: Callable[[Iterable[Any]], TableColumns], transform: Transform | None = None
) -> Source | NativeCollection | None:
    """Open a DataFrame with the columns that `choose` takes of those it has; None for anything else."""
    if _is(data, "pandas"):
        return _open_pandas(data, choose(data.columns), transform)
    if _is(data, "dask.dataframe"):
        made: NativeCollection = dask_source.from_frame(data, choose(data.columns))
    elif type(data).__module__.startswith("pyspark.sql") and hasattr(data, "schema"):
        connect = type(data).__module__.startswith("pyspark.sql.connect")
        from_frame = spark_connect_source.from_frame if connect else spark_source.from_frame
        made = from_frame(data, choose(data.columns))
    else:
        return None
    if transform is not None:
        raise DataError(
            f"a transform is for data that workers read; the rows of a {made.engine} DataFrame are computed by "
            f"{made.engine}: transform its columns"
        )
    return made


def _open_pandas(frame: Any, columns: TableColumns, transform: Transform | None) -> Source:
    columns = replace(columns, engine="pandas")
    check_frame(frame, columns)
    if columns.key is None:
        return ArraySource(frame_rows(frame, columns), transform)
    found = keyed_frame_rows(frame, columns)
    return ArraySource(found.rows, transform, found.keys)


def _is(data: Any, module: str) -> bool:
    """Check for a DataFrame without importing its library: who has such an object has imported it."""
    kind = getattr(sys.modules.get(module), "DataFrame", None)
    return isinstance(kind, type) and isinstance(data, kind)
