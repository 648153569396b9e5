"""Bring records of one key, or of one range, to one partition: what tasks on both sides of a shuffle do."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from operator import itemgetter
from random import Random
from typing import Any, NamedTuple

from strombus.compat.dl4j.hashing import PortableHash
from strombus.errors import ExecutorError

__all__ = [
    "Bucket",
    "bounds_of",
    "combine_values",
    "deal_records",
    "gather_groups",
    "gather_merged",
    "gather_records",
    "gather_sorted",
    "sketch_keys",
    "split_by_key",
    "split_by_range",
]

Pair = tuple[Any, Any]


class Bucket(NamedTuple):
    """What one partition sends to one other.

    Parameters
    ----------
    records : list
    seed : int or None
        Something that differs between processes whose ``hash`` differs, where that was used.
    """

    records: list[Any]
    seed: int | None = None


def split_by_key(size: int, function: Callable[[Any], int] | None, index: int, pairs: Iterable[Pair]) -> list[Bucket]:
    """Put pairs into buckets by the hash of their keys, PySpark's where `function` is None."""
    place = PortableHash() if function is None else function
    buckets: list[list[Any]] = [[] for _ in range(size)]
    for key, value in pairs:
        buckets[place(key) % size].append((key, value))
    seeded = isinstance(place, PortableHash) and place.seeded
    return [Bucket(records, hash("strombus") if seeded else None) for records in buckets]


def deal_records(size: int, index: int, records: Iterable[Any]) -> list[Bucket]:
    """Deal records out in turn, beginning at another partition for each."""
    buckets: list[list[Any]] = [[] for _ in range(size)]
    for number, record in enumerate(records, index):
        buckets[number % size].append(record)
    return [Bucket(dealt) for dealt in buckets]


def _checked(buckets: Iterable[Bucket]) -> Iterator[list[Any]]:
    seeds = set()
    for bucket in buckets:
        seeds.add(bucket.seed)
        if len(seeds - {None}) > 1:
            raise ExecutorError(
                "the keys are of a type that each worker hashes differently: start the workers with PYTHONHASHSEED=0 "
                "in their environment, or use numbers, strings, bytes, None or tuples of them as keys"
            )
        yield bucket.records


def gather_records(index: int, *buckets: Bucket) -> Iterator[Any]:
    """Return the records in the order of the partitions that sent them."""
    return (record for records in _checked(buckets) for record in records)


def combine_values(
    create: Callable[[Any], Any], extend: Callable[[Any, Any], Any], index: int, pairs: Iterable[Pair]
) -> Iterable[Pair]:
    """Combine the values of each key of one partition, before they travel."""
    combined: dict[Any, Any] = {}
    for key, value in pairs:
        combined[key] = extend(combined[key], value) if key in combined else create(value)
    return combined.items()


def gather_merged(merge: Callable[[Any, Any], Any], index: int, *buckets: Bucket) -> Iterable[Pair]:
    """Merge what stands for the values of each key."""
    merged: dict[Any, Any] = {}
    for key, value in gather_records(index, *buckets):
        merged[key] = merge(merged[key], value) if key in merged else value
    return merged.items()


def gather_groups(counts: tuple[int, ...], index: int, *buckets: Bucket) -> Iterable[Pair]:
    """Return (key, one list of values for each RDD); `counts` says how many buckets each RDD has sent."""
    groups: dict[Any, tuple[list[Any], ...]] = {}
    start = 0
    for number, count in enumerate(counts):
        for key, value in gather_records(index, *buckets[start : start + count]):
            if key not in groups:
                groups[key] = tuple([] for _ in counts)
            groups[key][number].append(value)
        start += count
    for _ in _checked(buckets):  # across the RDDs too
        pass
    return groups.items()


def sketch_keys(wanted: int, key: Callable[[Any], Any], index: int, records: Iterable[Any]) -> list[Any]:
    """Return the number of records and the keys of up to `wanted` of them, drawn evenly."""
    random, keys, count = Random(index), [], 0
    for count, record in enumerate(records, 1):
        if count <= wanted:
            keys.append(key(record))
        elif (place := random.randrange(count)) < wanted:
            keys[place] = key(record)
    return [count, keys]


def bounds_of(size: int, index: int, *sketches: list[Any]) -> list[Any]:
    """Return the keys that cut the records into `size` ranges, about equal in number.

    Each key of a sketch stands for as many records as its partition has for each key drawn; where all were drawn
    these are PySpark's bounds.
    """
    weighed = [(key, count / len(drawn)) for (count, drawn) in sketches for key in drawn]
    weighed.sort(key=itemgetter(0))
    sums = list(accumulate(weight for _, weight in weighed))
    cuts = (bisect_right(sums, sums[-1] * cut / size) for cut in range(1, size) if sums)
    return [weighed[min(place, len(weighed) - 1)][0] for place in cuts]


def split_by_range(
    size: int, key: Callable[[Any], Any], ascending: bool, index: int, records: Iterable[Any], bounds: list[Any]
) -> list[Bucket]:
    """Put records into buckets by the bounds between which their keys lie."""
    buckets: list[list[Any]] = [[] for _ in range(size)]
    for record in records:
        place = bisect_left(bounds, key(record))
        buckets[place if ascending else size - 1 - place].append(record)
    return [Bucket(chosen) for chosen in buckets]


def gather_sorted(key: Callable[[Any], Any], ascending: bool, index: int, *buckets: Bucket) -> list[Any]:
    """Sort a range; records of equal keys stay in their order."""
    return sorted(gather_records(index, *buckets), key=key, reverse=not ascending)
