"""What transformations do on a worker: functions of a partition's number and its records.

Generators call the user's functions, so that a StopIteration that escapes from one is an error and ends no partition.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import chain, islice
from typing import Any

from strombus.errors import DataError

Records = Iterator[Any]


def to_each(function: Callable[[Any], Any], index: int, records: Records) -> Records:
    """Map."""
    return (function(record) for record in records)


def to_many(function: Callable[[Any], Iterable[Any]], index: int, records: Records) -> Records:
    """Flat map."""
    return (item for record in records for item in function(record))


def to_each_value(function: Callable[[Any], Any], index: int, records: Records) -> Records:
    """Map the values of pairs."""
    return ((key, function(value)) for key, value in records)


def to_many_values(function: Callable[[Any], Iterable[Any]], index: int, records: Records) -> Records:
    """Flat map the values of pairs."""
    return ((key, item) for key, value in records for item in function(value))


def keep_if(function: Callable[[Any], Any], index: int, records: Records) -> Records:
    """Filter."""
    return (record for record in records if function(record))


def to_partition(function: Callable[[Records], Iterable[Any]], index: int, records: Records) -> Iterable[Any]:
    """Map a whole partition."""
    return function(records)


def to_numbered_partition(
    function: Callable[[int, Records], Iterable[Any]], index: int, records: Records
) -> Iterable[Any]:
    """Map a whole partition that knows its number."""
    return function(index, records)


def pair_up(function: Callable[[Any], Any], index: int, records: Records) -> Records:
    """Put a key before each record."""
    return ((function(record), record) for record in records)


def as_list(index: int, records: Records) -> Iterable[Any]:
    """Make one record of the partition."""
    return [list(records)]


def count_records(index: int, records: Iterable[Any]) -> Iterable[Any]:
    """Count."""
    return [sum(1 for _ in records)]


def take_first(count: int, index: int, records: Records) -> Records:
    """Take up to `count` records and compute no more."""
    return islice(records, count)


def call_each(function: Callable[[Any], Any], index: int, records: Records) -> Iterable[Any]:
    """Call for the effect alone."""
    for record in records:
        function(record)
    return ()


def call_once(function: Callable[[Records], Any], index: int, records: Records) -> Iterable[Any]:
    """Call with all records, for the effect alone."""
    function(records)
    return ()


def fold_records(start: Any, merge: Callable[[Any, Any], Any], index: int, records: Records) -> list[Any]:
    """Fold from `start`, which this task has to itself; one record."""
    return [reduce(merge, records, start)]


def reduce_records(merge: Callable[[Any, Any], Any], index: int, records: Iterable[Any]) -> list[Any]:
    """Reduce; one record, or none for an empty partition."""
    iterator = iter(records)
    return [reduce(merge, iterator, first) for first in islice(iterator, 1)]


def number_records(index: int, records: Iterable[Any], *counts: list[int]) -> Records:
    """Pair each record with its place in the RDD; the counts are those of all partitions before this."""
    first = sum(count[0] for count in counts)
    return ((record, number) for number, record in enumerate(records, first))


def number_apart(size: int, index: int, records: Records) -> Records:
    """Pair each record with a number of its own, without counting first."""
    return ((record, number * size + index) for number, record in enumerate(records))


def concatenate(index: int, *blocks: Iterable[Any]) -> Records:
    """Put blocks one after the other."""
    return chain.from_iterable(blocks)


def zip_records(index: int, left: Sequence[Any], right: Sequence[Any]) -> Records:
    """Pair the records of two partitions of one length."""
    if len(left) != len(right):
        raise DataError(
            f"zip needs as many records in each partition of both RDDs, number {index} has {len(left)} and "
            f"{len(right)}; zipWithIndex and a join pair the records of any two RDDs"
        )
    return zip(left, right, strict=True)


def product(index: int, left: Iterable[Any], right: Sequence[Any]) -> Records:
    """Pair each record with each."""
    return ((one, other) for one in left for other in right)


def within(low: float, high: float, seed: int, index: int, records: Records) -> Records:
    """Keep the records whose random number, one for each place in the RDD, lies in [low, high)."""
    draw = random.Random(f"{seed}:{index}").random
    return (record for record in records if low <= draw() < high)


def sample_records(fraction: float, seed: int, index: int, records: Records) -> Records:
    """Repeat each record as often as a Poisson distribution says."""
    from numpy.random import default_rng

    draw = default_rng([seed, index]).poisson
    return (record for record in records for _ in range(draw(fraction)))


def select_positions(places: Sequence[Sequence[tuple[int, int]]], index: int, records: Records) -> Records:
    """Yield (number in the sample, record) for the wanted positions of this partition."""
    wanted: dict[int, list[int]] = {}
    for position, number in places[index]:
        wanted.setdefault(position, []).append(number)
    return ((number, record) for at, record in enumerate(records) for number in wanted.get(at, ()))
