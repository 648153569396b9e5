"""How members leave a gang that has lost one, or that others may join, and what another gang goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from strombus.types import NetworkState, Partition
from strombus.types.cursor import Span
from strombus.worker.bench import Feed
from strombus.worker.carrying import Carried
from strombus.worker.merging import Contribution, Pile, Summary, finish_round
from strombus.worker.saving import MemberRecord, merge_records

__all__ = ["Departure", "Standing", "furthest", "join_departures"]

_IDLE = 2.0**-100


@dataclass
class Standing:
    """Where a member stands in an epoch: how its rows were dealt, and after how many steps the members met last.

    Parameters
    ----------
    rows : int
        That this member has trained of it.
    """

    epoch: int
    ranges: Sequence[Partition]
    sizes: Sequence[Sequence[int]]
    met: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Departure:
    """What a member leaves with: its state, and which rows of the epoch are in its parameters.

    Parameters
    ----------
    rank : int
    record : MemberRecord
    parameters : ndarray of shape (n,)
    epoch : int
    met : int
        The epoch's steps when the members last met: of two that leave, who has met the others more often has
        everything that the other sent.
    number : int
        Steps of the epoch, of the member that has taken most of them.
    left : tuple of tuple of (int, int)
        For each rank the stretches of the epoch's order whose updates are not in `parameters`.
    examples, minibatches : int
        Of the epoch and since this gang began, those whose updates are.
    """

    rank: int
    record: MemberRecord
    parameters: NDArray[Any]
    epoch: int
    met: int
    number: int
    left: tuple[tuple[Span, ...], ...]
    examples: int
    minibatches: int

    @classmethod
    def of(
        cls,
        rank: int,
        record: MemberRecord,
        parameters: NDArray[Any],
        standing: Standing,
        feed: Feed,
        seen: Sequence[int],
    ) -> Departure:
        """Return what a member leaves with that has `seen` so many steps of each since they met."""
        epoch, met, sizes = standing.epoch, standing.met, standing.sizes
        taken = [min(len(mine), met + count) for mine, count in zip(sizes, seen, strict=True)]
        left = tuple(feed.rest(part, epoch, count) for part, count in zip(standing.ranges, taken, strict=True))
        examples = sum(sum(mine[:count]) for mine, count in zip(sizes, taken, strict=True))
        return cls(rank, record, parameters, epoch, met, feed.done(epoch) + max(taken), left, examples, sum(taken))


def furthest(departures: Sequence[Departure]) -> Departure:
    """Return the member from whose parameters all go on: the lowest rank of those that have come furthest."""
    return min(departures, key=lambda one: (-one.epoch, -one.met, one.rank))


def join_departures(departures: Sequence[Departure], combine: Literal["mean", "sum"]) -> tuple[NetworkState, Carried]:
    """Return what any number of members goes on from.

    The parameters are those of the `furthest`; of all that have left, what they had not yet sent is joined, and the
    mean of their optimizers and buffers is taken. What a lost member had not sent is lost with it.
    """
    records = [one.record for one in departures]
    carried, updater = merge_records(records, combine)
    nothing = np.empty(0, np.float32)
    terms = tuple(
        Contribution(
            NetworkState(nothing, record.buffers, None), max(record.figures["epoch_rows"], _IDLE), Summary(), 0
        )
        for record in records
    )
    buffers = finish_round(Pile(terms)).state.buffers
    iteration = max(int(record.figures["iteration"]) for record in records)
    return NetworkState(furthest(departures).parameters, buffers, updater, iteration), carried
