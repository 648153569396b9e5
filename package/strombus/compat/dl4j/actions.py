"""Actions: what computes an RDD and brings a result to the driver."""

from __future__ import annotations

import copy
import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial, reduce
from itertools import chain, pairwise
from operator import add
from typing import Any

from strombus.compat.dl4j import steps
from strombus.compat.dl4j.lineage import Block, Derived
from strombus.compat.dl4j.partitions import Partitions
from strombus.compat.dl4j.statistics import StatCounter
from strombus.errors import ConfigurationError, EmptyDataError

__all__ = ["Actions"]

Merge = Callable[[Any, Any], Any]


class Actions(Partitions):
    """What runs the partitions' tasks. Partial results are merged in the order of the partitions."""

    def collect(self) -> list[Any]:
        """Return all records, in order."""
        return [record for records in self._run() for record in records]

    def collectAsMap(self) -> dict[Any, Any]:
        """Return the pairs as a dictionary; of several values of a key, the last."""
        return dict(self.collect())

    def count(self) -> int:
        """Return the number of records."""
        return sum(self._merged("count", steps.count_records))

    def countByValue(self) -> dict[Any, int]:
        """Return how often each record occurs."""
        return dict(sum(self._merged("countByValue", _tally), Counter()))

    def countByKey(self) -> dict[Any, int]:
        """Return how many pairs each key has."""
        return self._narrow("countByKey", steps.to_each, _key_of).countByValue()

    def lookup(self, key: Any) -> list[Any]:
        """Return the values of a key, in order."""
        return self._narrow("lookup", _values_of, key).collect()

    def _merged(self, operation: str, step: Callable[..., Iterable[Any]], *fixed: Any) -> Iterator[Any]:
        """Return the records of a step that leaves few of them."""
        return chain.from_iterable(self._narrow(operation, step, *fixed)._run())

    # -- some records ----------------------------------------------------------------------------

    def take(self, num: int) -> list[Any]:
        """Return the first `num` records; no more partitions are computed than that needs, four times as many a try."""
        found: list[Any] = []
        start, width = 0, 1
        while len(found) < num and start < self._node.size:
            some = self._narrow("take", steps.take_first, num - len(found))
            for records in some._run(range(start, min(start + width, self._node.size))):
                found += records
            start, width = start + width, 4 * (start + width)
        return found[: max(num, 0)]

    def first(self) -> Any:
        """Return the first record.

        Raises
        ------
        ValueError
            When there is none.
        """
        found = self.take(1)
        if not found:
            raise EmptyDataError("RDD is empty: first() needs at least one record")
        return found[0]

    def isEmpty(self) -> bool:
        """Say whether there is no record."""
        return not self.take(1)

    def takeOrdered(self, num: int, key: Callable[[Any], Any] | None = None) -> list[Any]:
        """Return the `num` smallest records, in order."""
        return self._extreme(num, partial(heapq.nsmallest, num, key=key))

    def top(self, num: int, key: Callable[[Any], Any] | None = None) -> list[Any]:
        """Return the `num` largest records, the largest first."""
        return self._extreme(num, partial(heapq.nlargest, num, key=key))

    def _extreme(self, num: int, choose: Callable[[Iterable[Any]], list[Any]]) -> list[Any]:
        return choose(self._merged("takeOrdered", steps.to_partition, choose)) if num > 0 else []

    def takeSample(self, withReplacement: bool, num: int, seed: int | None = None) -> list[Any]:
        """Return exactly `num` records drawn at random, in random order; all of them where there are fewer.

        The records are counted first: another pass over the RDD.
        """
        if num < 0:
            raise ConfigurationError(f"num must not be negative, got {num}")
        draw = random.Random(seed)
        counts = list(self._merged("count", steps.count_records))
        total = sum(counts)
        if not total or not num:
            return []
        places = draw.choices(range(total), k=num) if withReplacement else draw.sample(range(total), min(num, total))
        drawn = self._merged("takeSample", steps.select_positions, _by_partition(places, counts))
        return [record for _, record in sorted(drawn, key=_key_of)]

    # -- merging all -----------------------------------------------------------------------------

    def reduce(self, f: Merge) -> Any:
        """Reduce all records.

        Raises
        ------
        ValueError
            When there is none.
        """
        found = list(self._merged("reduce", steps.reduce_records, f))
        if not found:
            raise EmptyDataError("Can not reduce() empty RDD: use fold(), which has a value to start from")
        return reduce(f, found)

    def fold(self, zeroValue: Any, op: Merge) -> Any:
        """Fold each partition from `zeroValue`, then what they came to from `zeroValue` too."""
        return self.aggregate(zeroValue, op, op)

    def aggregate(self, zeroValue: Any, seqOp: Merge, combOp: Merge) -> Any:
        """Fold each partition from `zeroValue` with `seqOp`, then what they came to with `combOp`."""
        return reduce(combOp, self._merged("aggregate", steps.fold_records, zeroValue, seqOp), copy.deepcopy(zeroValue))

    def treeReduce(self, f: Merge, depth: int = 2) -> Any:
        """Reduce all records in a tree of `depth` levels on the cluster."""
        found = self._narrow("treeReduce", steps.reduce_records, f)._tree(f, depth)
        if not found:
            raise EmptyDataError("Cannot reduce empty RDD: use treeAggregate(), which has a value to start from")
        return reduce(f, found)

    def treeAggregate(self, zeroValue: Any, seqOp: Merge, combOp: Merge, depth: int = 2) -> Any:
        """Fold each partition from `zeroValue`, then merge in a tree of `depth` levels on the cluster."""
        found = self._narrow("treeAggregate", steps.fold_records, zeroValue, seqOp)._tree(combOp, depth)
        return reduce(combOp, found) if found else copy.deepcopy(zeroValue)

    def _tree(self, merge: Merge, depth: int) -> list[Any]:
        """Merge neighbouring partitions until one level is left for the driver."""
        if depth < 1:
            raise ConfigurationError(f"depth must be at least 1, got {depth}")
        node = self._node
        scale = max(2, math.ceil(node.size ** (1 / depth)))
        while node.size > scale + math.ceil(node.size / scale):
            node = _merged_groups(node, scale, merge)
        return type(self)(self._context, node).collect()

    def sum(self) -> Any:
        """Return the sum of the records; 0 for none."""
        return reduce(add, self._merged("sum", _add_up), 0)

    def max(self, key: Callable[[Any], Any] | None = None) -> Any:
        """Return the largest record; ValueError when there is none."""
        return self.reduce(partial(_chosen, max, key))

    def min(self, key: Callable[[Any], Any] | None = None) -> Any:
        """Return the smallest record; ValueError when there is none."""
        return self.reduce(partial(_chosen, min, key))

    def stats(self) -> StatCounter:
        """Return number, mean, variance, smallest and largest of records that are numbers, in one pass."""
        return reduce(StatCounter.mergeStats, self._merged("stats", _describe), StatCounter())

    def mean(self) -> float:
        """Return the mean; 0.0 for no records."""
        return self.stats().mean()

    def variance(self) -> float:
        """Return the variance of the records as a whole population; NaN for none."""
        return self.stats().variance()

    def stdev(self) -> float:
        """Return the standard deviation of the records as a whole population; NaN for none."""
        return self.stats().stdev()

    def sampleVariance(self) -> float:
        """Return the variance with n - 1 in the denominator."""
        return self.stats().sampleVariance()

    def sampleStdev(self) -> float:
        """Return the standard deviation with n - 1 in the denominator."""
        return self.stats().sampleStdev()

    # -- effects ---------------------------------------------------------------------------------

    def foreach(self, f: Callable[[Any], Any]) -> None:
        """Call `f` with each record, on the workers."""
        self._narrow("foreach", steps.call_each, f)._run()

    def foreachPartition(self, f: Callable[[Iterator[Any]], Any]) -> None:
        """Call `f` with the iterator over each partition, on the workers."""
        self._narrow("foreachPartition", steps.call_once, f)._run()

    def saveAsTextFile(self, path: str) -> None:
        """Write ``str(record)`` line by line, into a new directory with one file for each partition.

        Parameters
        ----------
        path : str
            A directory that all workers reach, or any URI of fsspec.

        Raises
        ------
        DataError
            When it exists.
        """
        from strombus.compat.dl4j import files

        def write(target: str) -> None:
            self._narrow("saveAsTextFile", files.write_lines, target)._run()

        files.save(path, write)


def _merged_groups(node: Any, scale: int, merge: Merge) -> Derived:
    size = math.ceil(node.size / scale)
    return Derived(
        "merge",
        size,
        partial(_merge_blocks, merge),
        lambda i: [Block(node, part) for part in range(i * scale, min((i + 1) * scale, node.size))],
    )


def _merge_blocks(merge: Merge, index: int, *blocks: Iterable[Any]) -> list[Any]:
    return steps.reduce_records(merge, index, chain.from_iterable(blocks))


def _by_partition(places: Iterable[int], counts: list[int]) -> list[list[tuple[int, int]]]:
    """Return, for each partition, (position in it, number in the sample)."""
    ends, found = [0], []
    for count in counts:
        ends.append(ends[-1] + count)
    numbered = sorted((place, number) for number, place in enumerate(places))
    for start, end in pairwise(ends):
        found.append([(place - start, number) for place, number in numbered if start <= place < end])
    return found


def _key_of(pair: Any) -> Any:
    return pair[0]


def _values_of(key: Any, index: int, pairs: Iterable[Any]) -> Iterator[Any]:
    return (value for found, value in pairs if found == key)


def _tally(index: int, records: Iterable[Any]) -> list[Counter[Any]]:
    return [Counter(records)]


def _add_up(index: int, records: Iterable[Any]) -> list[Any]:
    return [sum(records)]


def _describe(index: int, records: Iterable[Any]) -> list[StatCounter]:
    return [StatCounter(records)]


def _chosen(choose: Callable[..., Any], key: Callable[[Any], Any] | None, one: Any, other: Any) -> Any:
    return choose(one, other, key=key)
