"""RDD: Spark's collection of records, on Dask."""

from __future__ import annotations

from strombus.compat.dl4j.actions import Actions
from strombus.compat.dl4j.pairs import PairTransformations

__all__ = ["RDD"]


class RDD(PairTransformations, Actions):
    """Records in partitions on a Dask cluster, with the methods and the semantics of PySpark's ``RDD``.

    Made by a `DaskSparkContext`, or from another RDD. Transformations run nothing; an action runs each partition's
    chain of transformations as one task, and computes anew what is not persisted. Where records move between
    partitions they pass from worker to worker and keep their order: an action's result is the same each time.
    A function's exception is raised by the action. `toBag` hands the partitions to other Dask tools.

    Notes
    -----
    ``groupByKey`` and ``cogroup`` give lists where PySpark has iterables. Records that two transformations of one
    action read from the same shuffle are the same objects: a function that changes them in place must copy first.
    """
