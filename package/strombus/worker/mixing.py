"""Whose updates count when, and by how much: how the members' parameters stay together."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from strombus.errors import WireError
from strombus.executors.members import LEASE
from strombus.transport.base import Message
from strombus.worker.peers import Kind, Peers, Regroup

__all__ = ["LEFT_OUT", "Appliance", "Mixer", "Pace"]

_FIRST_STEPS = 2
"""Steps of an epoch that are not measured."""
_SLACK = 20
"""Times the longest step so far that another one may take."""

_HEAD = struct.Struct("<d")  # what the minibatch's loss averaged over, or:
LEFT_OUT = -1.0
"""Stands there for a minibatch that was left out: its empty update has no part in the weights of its step."""


class Appliance(Protocol):
    """Adds updates to a member's parameters; `strombus.compression.Compressor` does."""

    def apply_own_(self, scale: float) -> None:
        """Add the member's own last update, times `scale`."""

    def apply_(self, payload: memoryview, scale: float) -> None:
        """Add a peer's update, times `scale`; WireError, and no change, when it is damaged."""


class Pace:
    """How long another member may take for a step, by how long steps have taken here and there.

    An epoch's first steps open data, and a network's first ones compile: they are not measured, and whoever is in
    them, or in the first that is, has the time of any other wait. Afterwards a member may take 20 times the longest
    step of any member so far, waits included, and at least as long as one that gives no sign of life.

    Parameters
    ----------
    longest : float
        Seconds of any other wait, which this is never above (option `timeout`).
    chosen : float or None
        Seconds to take instead of what is measured (option `step_timeout`).
    """

    def __init__(self, longest: float, chosen: float | None) -> None:
        self._longest, self._chosen = longest, chosen
        self._measured = 0.0
        self._steps = 0
        self._last = 0.0
        self._heard: dict[int, float] = {}

    def start(self) -> None:
        """Begin an epoch."""
        self._steps = 0
        self._heard = {}

    def note(self) -> None:
        """Take note of the end of a step."""
        now = time.monotonic()
        if self._steps >= _FIRST_STEPS:
            self._measured = max(self._measured, now - self._last)
        self._steps, self._last = self._steps + 1, now

    def hear(self, rank: int, seen: int) -> None:
        """Take note of another member's step, the last of `seen` in the epoch: nobody may have waited for it here."""
        now = time.monotonic()
        if seen > _FIRST_STEPS:
            self._measured = max(self._measured, now - self._heard[rank])
        self._heard[rank] = now

    def limit(self, seen: int) -> tuple[float, str]:
        """Return the seconds to wait for one that has taken `seen` steps of the epoch, and their option."""
        measured = self._measured if seen > _FIRST_STEPS else 0.0
        if seen < _FIRST_STEPS or not (self._chosen or measured):
            return self._longest, "timeout"
        wanted = self._chosen or max(LEASE, _SLACK * measured)
        return (wanted, "step_timeout") if wanted < self._longest else (self._longest, "timeout")


class Mixer:
    """Exchange the updates of an epoch's steps.

    With `max_staleness` 0 step `s` is everybody's step `s`, added in rank order, so that all members
    have the same bits. Otherwise an update is added as it comes, and a member runs at most
    `max_staleness` steps ahead of the slowest (None: as far as it likes).

    Parameters
    ----------
    peers : Peers
    target : Appliance
    combine : {"mean", "sum"}
        "mean": the weights of one step's updates add up to 1. "sum": each counts in full, as in DL4J.
    max_staleness : int or None
    pace : Pace
        How long others may take for a step.
    weighting : {"examples", "uniform"}
        Whether an update of a mean counts by what its minibatch's loss averaged over (at staleness 0, where all of a
        step's are known together; otherwise by its rows, which all members know before), or each alike.
    """

    def __init__(
        self,
        peers: Peers,
        target: Appliance,
        combine: Literal["mean", "sum"],
        max_staleness: int | None,
        pace: Pace,
        weighting: Literal["examples", "uniform"] = "examples",
    ) -> None:
        self._peers, self._target, self._pace = peers, target, pace
        self._combine, self._staleness = combine, max_staleness
        self._uniform = weighting == "uniform"
        self._sizes: list[Sequence[int]] = []
        self._step = 0
        self._seen: dict[int, int] = {}
        self._active: set[int] = set()
        self._cut: float = math.inf

    def start(self, sizes: Sequence[Sequence[int]]) -> None:
        """Begin an epoch in which member `r` has minibatches of ``sizes[r]`` rows."""
        self._sizes = list(sizes)
        self._step = 0
        self._seen = dict.fromkeys(self._peers.others, 0)
        self._active = set(self._peers.others)
        self._cut = math.inf
        self._pace.start()

    def taken(self) -> list[int]:
        """Return, for each member, how many of the stretch's steps are in the parameters here (not at staleness 0)."""
        return [self._seen.get(rank, self._step) for rank in range(self._peers.size)]

    def add(self, payload: bytes | bytearray, count: float) -> None:
        """Send this member's next update and add what is due; `count` is what its loss averaged over, or `LEFT_OUT`."""
        step, self._step = self._step, self._step + 1
        self._peers.go_on(f"it took step {step} of an epoch")
        if self._peers.others:
            self._peers.send(Kind.UPDATE, step, b"".join((_HEAD.pack(count), payload)))
        if self._staleness == 0:
            self._join(step, count)
        else:
            self._target.apply_own_(self._planned(self._peers.rank, step))
            self._peers.poll()
            self._drain()
            if self._staleness is not None:
                what = f"step {step - self._staleness} of this epoch"
                self._peers.wait(lambda: self._behind(step), what, self._limit, alone=True)
        self._pace.note()

    def cut(self) -> None:
        """Have all members end this stretch of steps soon, where possible after the same step.

        Before this member's next update nobody is further ahead than `max_staleness` allows, and whoever waits for that
        update hears of it first. Where members may be any number of steps apart, each stops where it is.
        """
        if self._cut == math.inf:
            near = self._staleness if self._peers.others else None
            self._cut = self._step if near is None else self._step + near + 1
            self._peers.send(Kind.CUT, int(self._cut))

    def length(self, planned: int) -> int:
        """Return the steps of this stretch, which has ended and would have had `planned`, the same for all members."""
        return int(min(self._cut, planned))

    @property
    def ends(self) -> bool:
        """Whether this member takes no more steps of the stretch, since it was cut."""
        return self._step >= self._cut

    def finish(self, note: bytes) -> dict[int, bytes]:
        """Tell the others that no update follows, add all of theirs, and return their notes.

        Raises Regroup, with all added that there is, when a member was lost or has left.
        """
        self._peers.send(Kind.END, self._step, note)
        notes: dict[int, bytes] = {}
        if self._staleness == 0:
            while self._active:
                step, self._step = self._step, self._step + 1
                self._join(step, None)
        else:
            self._peers.wait(self._drain, "the end of the epoch", self._limit, alone=True)
        if self._peers.lost or any(self._has_left(rank) for rank in self._peers.others):
            raise Regroup
        for rank in self._peers.others:
            end = self._peers.take(rank, Kind.END)
            if end.step != self._seen[rank]:
                raise WireError(f"member {rank} says it sent {end.step} updates, {self._seen[rank]} came")
            notes[rank] = bytes(end.payload)
        return notes

    def _limit(self, rank: int) -> tuple[float, str]:
        return self._pace.limit(self._seen[rank])

    def _head(self, rank: int) -> Message | None:
        """Return a member's first message, having taken in that the stretch ends sooner where that came before it."""
        while (head := self._peers.head(rank)) is not None and head.kind == Kind.CUT:
            self._cut = min(self._cut, self._peers.take(rank, Kind.CUT).step)
        return head

    def _has_left(self, rank: int) -> bool:
        head = self._head(rank)
        return head is not None and head.kind == Kind.LEAVE

    # -- at staleness 0

    def _join(self, step: int, own: float | None) -> None:
        """Add everybody's update of one step in rank order; who has ended, or leaves it out, has no part in it."""
        what = f"step {step} of this epoch"
        self._peers.wait(lambda: [rank for rank in self._active if self._head(rank) is None], what, self._limit)
        updates = {rank: self._update_of(rank) for rank in sorted(self._active)}
        counts = {rank: _HEAD.unpack_from(update.payload)[0] for rank, update in updates.items() if update is not None}
        if own is not None:
            counts[self._peers.rank] = own
        counts = {rank: count for rank, count in counts.items() if count != LEFT_OUT}
        total = sum(counts[rank] for rank in sorted(counts))
        for rank in sorted(counts):
            # Where everything is masked on every member nothing is weighed: the optimizers' momenta count alike.
            share = 1 / len(counts) if self._uniform or not total else counts[rank] / total
            self._apply(rank, updates.get(rank), 1.0 if self._combine == "sum" else share)

    def _update_of(self, rank: int) -> Message | None:
        """Take a member's update; None when the member has ended instead, which stays to be read."""
        head = self._head(rank)
        assert head is not None
        if head.kind == Kind.END:
            self._active.discard(rank)
            return None
        update = self._peers.take(rank, Kind.UPDATE)
        self._count(rank, update)
        return update

    # -- at any other staleness

    def _drain(self) -> Iterable[int]:
        """Add all updates that have come; return who has not ended yet."""
        lost = self._peers.lost
        for rank in sorted(self._active, key=lambda rank: (rank not in lost, rank)):
            while (head := self._head(rank)) is not None:
                if head.kind in (Kind.END, Kind.LEAVE):
                    self._active.discard(rank)
                    break
                update = self._peers.take(rank, Kind.UPDATE)
                self._count(rank, update)
                self._apply(rank, update, self._planned(rank, update.step))
            if rank in lost:  # from now on it counts as one that has ended
                self._sizes[rank] = self._sizes[rank][: self._seen[rank]]
                self._active.discard(rank)
        return self._active

    def _behind(self, step: int) -> list[int]:
        assert self._staleness is not None
        self._drain()
        return [rank for rank in self._active if step - self._seen[rank] >= self._staleness]

    def _planned(self, rank: int, step: int) -> float:
        """Return the weight of a member's step, known to all from how the epoch's rows were dealt."""
        if self._combine == "sum":
            return 1.0
        if step >= len(self._sizes[rank]):
            raise WireError(f"member {rank} sent step {step} of an epoch of {len(self._sizes[rank])}")
        there = [sizes[step] for sizes in self._sizes if step < len(sizes)]
        return 1 / len(there) if self._uniform else self._sizes[rank][step] / sum(there)

    def _count(self, rank: int, update: Message) -> None:
        if update.step != self._seen[rank] or len(update.payload) < _HEAD.size:
            raise WireError(f"member {rank} sent step {update.step}, wanted {self._seen[rank]}")
        (weight,) = _HEAD.unpack_from(update.payload)
        if not (0 <= weight < math.inf or weight == LEFT_OUT):
            raise WireError(f"member {rank} sent step {update.step} with a weight of {weight}")
        self._seen[rank] += 1
        self._pace.hear(rank, self._seen[rank])

    def _apply(self, rank: int, update: Message | None, scale: float) -> None:
        if update is None:
            self._target.apply_own_(scale)
        else:
            try:
                self._target.apply_(memoryview(update.payload)[_HEAD.size :], scale)
            except WireError as error:
                raise WireError(f"member {rank} sent a damaged step {update.step}: {error}") from error
