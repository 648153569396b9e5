"""A partition that an engine holds and only that engine can open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["NativePartition"]


@dataclass(frozen=True)
class NativePartition:
    """Handle of one partition of a Bag, a dask array, an RDD or a DataFrame.

    An executor replaces the handle by its data before the task sees it: a sequence of
    objects for a Bag, an iterator of objects for an RDD, the computed value for a delayed one.

    Parameters
    ----------
    engine : {"dask", "spark", "spark-connect"}
        Who can open it.
    handle : object
        A ``dask.delayed.Delayed`` or ``Future``; for Spark the RDD; for Spark Connect a record of the DataFrame
        (``frame``), the number of its ``partitions``, and ``open``, which turns Arrow batches into objects.
    index : int
        Number of the partition within its collection.
    """

    engine: str
    handle: Any
    index: int
