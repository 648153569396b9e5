"""Transformations of an RDD of (key, value) pairs, and those that compare records by their hash."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from typing import Any, Self

from strombus.compat.dl4j import shuffle, steps
from strombus.compat.dl4j.transformations import Transformations

__all__ = ["PairTransformations"]

Function = Callable[[Any], Any]
Merge = Callable[[Any, Any], Any]
Partitioner = Callable[[Any], int]


class PairTransformations(Transformations):
    """What moves records by their keys: on the cluster, from worker to worker.

    `partitionFunc` gives a key's hash; by default it is PySpark's, so that a key comes into the partition where
    Spark would have it.
    """

    def keys(self) -> Self:
        """Take the keys."""
        return self._narrow("keys", steps.to_each, itemgetter(0))

    def values(self) -> Self:
        """Take the values."""
        return self._narrow("values", steps.to_each, itemgetter(1))

    def mapValues(self, f: Function) -> Self:
        """Apply `f` to each value."""
        return self._narrow("mapValues", steps.to_each_value, f)

    def flatMapValues(self, f: Callable[[Any], Iterable[Any]]) -> Self:
        """Apply `f` to each value and pair all that it returns with the key."""
        return self._narrow("flatMapValues", steps.to_many_values, f)

    def partitionBy(self, numPartitions: int | None, partitionFunc: Partitioner | None = None) -> Self:
        """Bring each pair to the partition ``partitionFunc(key) % numPartitions``."""
        size = self._count(numPartitions, self._node.size)
        return self._shuffle(
            "partitionBy", size, partial(shuffle.split_by_key, size, partitionFunc), shuffle.gather_records
        )

    # -- one value for each key ------------------------------------------------------------------

    def combineByKey(
        self,
        createCombiner: Function,
        mergeValue: Merge,
        mergeCombiners: Merge,
        numPartitions: int | None = None,
        partitionFunc: Partitioner | None = None,
    ) -> Self:
        """Combine the values of each key: first inside the partitions, then over all of them, in their order.

        Parameters
        ----------
        createCombiner, mergeValue, mergeCombiners : callable
            Make a combiner of a value, add a value to one, and add one to another.
        """
        size = self._count(numPartitions, self._node.size)
        combined = self._narrow("combine", shuffle.combine_values, createCombiner, mergeValue)
        split = partial(shuffle.split_by_key, size, partitionFunc)
        return combined._shuffle("combineByKey", size, split, partial(shuffle.gather_merged, mergeCombiners))

    def reduceByKey(
        self, func: Merge, numPartitions: int | None = None, partitionFunc: Partitioner | None = None
    ) -> Self:
        """Reduce the values of each key."""
        return self.combineByKey(_itself, func, func, numPartitions, partitionFunc)

    def aggregateByKey(
        self,
        zeroValue: Any,
        seqFunc: Merge,
        combFunc: Merge,
        numPartitions: int | None = None,
        partitionFunc: Partitioner | None = None,
    ) -> Self:
        """Fold the values of each key of a partition from `zeroValue`, then merge what the partitions have."""
        create = partial(_fold_one, zeroValue, seqFunc)
        return self.combineByKey(create, seqFunc, combFunc, numPartitions, partitionFunc)

    def foldByKey(
        self, zeroValue: Any, func: Merge, numPartitions: int | None = None, partitionFunc: Partitioner | None = None
    ) -> Self:
        """Fold the values of each key of a partition from `zeroValue`, then reduce what the partitions have."""
        return self.aggregateByKey(zeroValue, func, func, numPartitions, partitionFunc)

    def groupByKey(self, numPartitions: int | None = None, partitionFunc: Partitioner | None = None) -> Self:
        """Gather the values of each key in a list, in the order of the RDD."""
        return self._grouped((), numPartitions, partitionFunc).mapValues(itemgetter(0))

    def groupBy(self, f: Function, numPartitions: int | None = None, partitionFunc: Partitioner | None = None) -> Self:
        """Gather the records with one ``f(record)`` in a list."""
        return self.keyBy(f).groupByKey(numPartitions, partitionFunc)

    def sortByKey(
        self, ascending: bool = True, numPartitions: int | None = None, keyfunc: Function | None = None
    ) -> Self:
        """Sort by ``keyfunc(key)``, see `sortBy`."""
        return self.sortBy(partial(_keyed, _itself if keyfunc is None else keyfunc), ascending, numPartitions)

    # -- with other RDDs -------------------------------------------------------------------------

    def cogroup(self, other: Self, numPartitions: int | None = None) -> Self:
        """Return (key, (list of values here, list of values there)) for each key of either RDD."""
        return self.groupWith(other, numPartitions=numPartitions)

    def groupWith(self, other: Self, *others: Self, numPartitions: int | None = None) -> Self:
        """Cogroup any number of RDDs."""
        return self._grouped([self._same(one, "cogroup") for one in (other, *others)], numPartitions, None)

    def _grouped(self, others: Iterable[Self], numPartitions: int | None, partitionFunc: Partitioner | None) -> Self:
        rest = list(others)
        counts = tuple(rdd._node.size for rdd in (self, *rest))
        size = self._count(numPartitions, sum(counts))
        split = partial(shuffle.split_by_key, size, partitionFunc)
        return self._shuffle("groupByKey", size, split, partial(shuffle.gather_groups, counts), rest)

    def join(self, other: Self, numPartitions: int | None = None) -> Self:
        """Return (key, (value here, value there)) for each two values of a key."""
        return self._joined(other, numPartitions, False, False)

    def leftOuterJoin(self, other: Self, numPartitions: int | None = None) -> Self:
        """Join, with None there for keys that only this RDD has."""
        return self._joined(other, numPartitions, True, False)

    def rightOuterJoin(self, other: Self, numPartitions: int | None = None) -> Self:
        """Join, with None here for keys that only the other RDD has."""
        return self._joined(other, numPartitions, False, True)

    def fullOuterJoin(self, other: Self, numPartitions: int | None = None) -> Self:
        """Join, with None where one of the two has no such key."""
        return self._joined(other, numPartitions, True, True)

    def _joined(self, other: Self, numPartitions: int | None, left: bool, right: bool) -> Self:
        return self.cogroup(other, numPartitions).flatMapValues(partial(_pair_values, left, right))

    def subtractByKey(self, other: Self, numPartitions: int | None = None) -> Self:
        """Keep the pairs whose key the other RDD lacks."""
        return self.cogroup(other, numPartitions).flatMapValues(_unless_there)

    # -- sets of records -------------------------------------------------------------------------

    def distinct(self, numPartitions: int | None = None) -> Self:
        """Keep one of equal records."""
        return self.keyBy(_itself).reduceByKey(_first, numPartitions).keys()

    def intersection(self, other: Self) -> Self:
        """Return the records that are in both, each once."""
        both = self.keyBy(_itself).cogroup(self._same(other, "intersection").keyBy(_itself))
        return both.filter(_in_both).keys()

    def subtract(self, other: Self, numPartitions: int | None = None) -> Self:
        """Return the records that the other RDD lacks, as often as they are here."""
        return self.keyBy(_itself).subtractByKey(self._same(other, "subtract").keyBy(_itself), numPartitions).values()


def _itself(value: Any) -> Any:
    return value


def _first(one: Any, other: Any) -> Any:
    return one


def _keyed(keyfunc: Function, pair: Any) -> Any:
    return keyfunc(pair[0])


def _fold_one(zero: Any, merge: Merge, value: Any) -> Any:
    return merge(copy.deepcopy(zero), value)  # a list as zero must not be shared by the keys


def _pair_values(left: bool, right: bool, groups: tuple[list[Any], list[Any]]) -> Iterable[Any]:
    here, there = groups
    if left and not there:
        there = [None]
    if right and not here:
        here = [None]
    return ((one, other) for one in here for other in there)


def _unless_there(groups: tuple[list[Any], list[Any]]) -> list[Any]:
    return [] if groups[1] else groups[0]


def _in_both(group: tuple[Any, tuple[list[Any], list[Any]]]) -> bool:
    return bool(group[1][0] and group[1][1])
