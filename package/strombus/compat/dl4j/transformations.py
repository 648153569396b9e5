"""Transformations of an RDD of any records."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, Self

from strombus.compat.dl4j import shuffle, steps
from strombus.compat.dl4j.lineage import Block, Derived, all_blocks
from strombus.compat.dl4j.partitions import Partitions
from strombus.errors import ConfigurationError

__all__ = ["Transformations"]


class Transformations(Partitions):
    """What makes another RDD from one or two; nothing runs before an action."""

    def map(self, f: Callable[[Any], Any], preservesPartitioning: bool = False) -> Self:
        """Apply `f` to each record."""
        return self._narrow("map", steps.to_each, f)

    def flatMap(self, f: Callable[[Any], Iterable[Any]], preservesPartitioning: bool = False) -> Self:
        """Apply `f` to each record and take all that it returns."""
        return self._narrow("flatMap", steps.to_many, f)

    def filter(self, f: Callable[[Any], Any]) -> Self:
        """Keep the records for which `f` is true."""
        return self._narrow("filter", steps.keep_if, f)

    def mapPartitions(self, f: Callable[[Iterator[Any]], Iterable[Any]], preservesPartitioning: bool = False) -> Self:
        """Apply `f` to the iterator over each partition."""
        return self._narrow("mapPartitions", steps.to_partition, f)

    def mapPartitionsWithIndex(
        self, f: Callable[[int, Iterator[Any]], Iterable[Any]], preservesPartitioning: bool = False
    ) -> Self:
        """Apply `f` to each partition's number and iterator."""
        return self._narrow("mapPartitionsWithIndex", steps.to_numbered_partition, f)

    def glom(self) -> Self:
        """Make one list of each partition."""
        return self._narrow("glom", steps.as_list)

    def keyBy(self, f: Callable[[Any], Any]) -> Self:
        """Pair each record with a key before it."""
        return self._narrow("keyBy", steps.pair_up, f)

    def zipWithIndex(self) -> Self:
        """Pair each record with its place in the RDD; the partitions are counted when an action runs, not before."""
        counts = Derived("count", self._node.size, steps.count_records, lambda i: [Block(self._node, i)])
        return self._derive(
            "zipWithIndex",
            self._node.size,
            steps.number_records,
            lambda i: [Block(self._node, i), *(Block(counts, before) for before in range(i))],
        )

    def zipWithUniqueId(self) -> Self:
        """Pair record k of partition i of n with the number i + k n."""
        return self._narrow("zipWithUniqueId", steps.number_apart, self._node.size)

    # -- with another RDD ------------------------------------------------------------------------

    def union(self, other: Self) -> Self:
        """Return the partitions of both, this RDD's first; nothing is removed."""
        return self._union([self._same(other, "union")])

    __add__ = union

    def _union(self, others: Sequence[Self]) -> Self:
        blocks = [block for rdd in (self, *others) for block in all_blocks(rdd._node)]
        return self._derive("union", len(blocks), steps.concatenate, lambda i: [blocks[i]])

    def zip(self, other: Self) -> Self:
        """Pair record by record.

        Raises
        ------
        ValueError
            When the RDDs differ in their number of partitions; in an action, when two partitions differ in length.
        """
        mine, theirs = self._node, self._same(other, "zip")._node
        if mine.size != theirs.size:
            raise ConfigurationError(
                f"zip needs RDDs with one number of partitions, got {mine.size} and {theirs.size}; repartition one"
            )
        return self._derive("zip", mine.size, steps.zip_records, lambda i: [Block(mine, i), Block(theirs, i)])

    def cartesian(self, other: Self) -> Self:
        """Pair each record with each of another RDD."""
        mine, theirs = self._node, self._same(other, "cartesian")._node
        return self._derive(
            "cartesian",
            mine.size * theirs.size,
            steps.product,
            lambda i: [Block(mine, i // theirs.size), Block(theirs, i % theirs.size)],
        )

    # -- moving ----------------------------------------------------------------------------------

    def repartition(self, numPartitions: int) -> Self:
        """Deal each partition's records out to so many partitions, in turn."""
        return self.coalesce(numPartitions, shuffle=True)

    def coalesce(self, numPartitions: int, shuffle: bool = False) -> Self:
        """Join neighbouring partitions down to so many; with `shuffle`, deal the records out to so many."""
        size = self._count(numPartitions, 1)
        if shuffle:
            return self._dealt(size)
        node, size = self._node, min(size, self._node.size)
        ranges = [range(i * node.size // size, (i + 1) * node.size // size) for i in range(size)]
        return self._derive("coalesce", size, steps.concatenate, lambda i: [Block(node, part) for part in ranges[i]])

    def _dealt(self, size: int) -> Self:
        return self._shuffle("repartition", size, partial(shuffle.deal_records, size), shuffle.gather_records)

    def sortBy(self, keyfunc: Callable[[Any], Any], ascending: bool = True, numPartitions: int | None = None) -> Self:
        """Sort by ``keyfunc(record)``; partition i holds what comes before partition i + 1.

        The ranges come from a sample of the keys, drawn when an action runs; records of equal keys keep their order.
        """
        node, size = self._node, self._count(numPartitions, self._node.size)
        wanted = 20 * size // max(1, node.size) + 20
        sketches = Derived(
            "sketch", node.size, partial(shuffle.sketch_keys, wanted, keyfunc), lambda i: [Block(node, i)]
        )
        bounds = Derived("bounds", 1, partial(shuffle.bounds_of, size), lambda _: all_blocks(sketches))
        split = Derived(
            "sortBy-split",
            node.size,
            partial(shuffle.split_by_range, size, keyfunc, ascending),
            lambda i: [Block(node, i), Block(bounds, 0)],
        )
        return self._derive(
            "sortBy",
            size,
            partial(shuffle.gather_sorted, keyfunc, ascending),
            lambda j: [Block(split, i, j) for i in range(node.size)],
        )

    # -- choosing --------------------------------------------------------------------------------

    def sample(self, withReplacement: bool, fraction: float, seed: int | None = None) -> Self:
        """Draw a sample of about `fraction` of the records, the same one at each action.

        Parameters
        ----------
        withReplacement : bool
            Each record any number of times, `fraction` on average, instead of at most once.
        """
        if fraction < 0:
            raise ConfigurationError(f"fraction must not be negative, got {fraction}")
        seed = random.randrange(2**31) if seed is None else abs(int(seed))
        if withReplacement:
            return self._narrow("sample", steps.sample_records, fraction, seed)
        return self._narrow("sample", steps.within, 0.0, fraction, seed)

    def randomSplit(self, weights: Sequence[float], seed: int | None = None) -> list[Self]:
        """Split at random into RDDs of sizes of about these proportions; each record is in one of them.

        The RDD must give its records in the same order each time it is computed; persist it otherwise.
        """
        total = sum(weights)
        if not weights or min(weights) < 0 or total <= 0:
            raise ConfigurationError(f"weights must not be negative and some must be positive, got {list(weights)}")
        seed = random.randrange(2**31) if seed is None else int(seed)
        ends = [end / total for end in accumulate(weights, initial=0.0)]
        ends[-1] = 1.0
        return [self._narrow("randomSplit", steps.within, low, high, seed) for low, high in pairwise(ends)]
