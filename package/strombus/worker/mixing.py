"""Whose updates count when, and by how much: how the members' parameters stay together."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from strombus.errors import WireError
from strombus.transport.base import Message
from strombus.worker.peers import Kind, Peers

__all__ = ["Appliance", "Mixer"]

_HEAD = struct.Struct("<d")  # what the minibatch's loss averaged over


class Appliance(Protocol):
    """Adds updates to a member's parameters; `strombus.compression.Compressor` does."""

    def apply_own_(self, scale: float) -> None:
        """Add the member's own last update, times `scale`."""

    def apply_(self, payload: memoryview, scale: float) -> None:
        """Add a peer's update, times `scale`; WireError, and no change, when it is damaged."""


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
        "mean": the updates of one step count by their examples, and their weights add up to 1. "sum": each
        counts in full, as in DL4J.
    max_staleness : int or None
    """

    def __init__(
        self, peers: Peers, target: Appliance, combine: Literal["mean", "sum"], max_staleness: int | None
    ) -> None:
        self._peers, self._target = peers, target
        self._combine, self._staleness = combine, max_staleness
        self._sizes: Sequence[Sequence[int]] = ()
        self._step = 0
        self._seen: dict[int, int] = {}
        self._active: set[int] = set()

    def start(self, sizes: Sequence[Sequence[int]]) -> None:
        """Begin an epoch in which member `r` has minibatches of ``sizes[r]`` rows."""
        self._sizes = sizes
        self._step = 0
        self._seen = dict.fromkeys(self._peers.others, 0)
        self._active = set(self._peers.others)

    def add(self, payload: bytes | bytearray, count: float) -> None:
        """Send this member's next update and add what is due; `count` is what its loss averaged over."""
        step, self._step = self._step, self._step + 1
        if self._peers.others:
            self._peers.send(Kind.UPDATE, step, b"".join((_HEAD.pack(count), payload)))
        if self._staleness == 0:
            self._join(step, count)
            return
        self._target.apply_own_(self._planned(self._peers.rank, step))
        self._peers.poll()
        self._drain()
        if self._staleness is not None:
            self._peers.wait(lambda: self._behind(step), f"step {step - self._staleness} of this epoch")

    def finish(self, note: bytes) -> dict[int, bytes]:
        """Tell the others that no update follows, add all of theirs, and return their notes."""
        self._peers.send(Kind.END, self._step, note)
        notes: dict[int, bytes] = {}
        if self._staleness == 0:
            while self._active:
                step, self._step = self._step, self._step + 1
                self._join(step, None)
        else:
            self._peers.wait(self._drain, "the end of the epoch")
        for rank in self._peers.others:
            end = self._peers.take(rank, Kind.END)
            if end.step != self._seen[rank]:
                raise WireError(f"member {rank} says it sent {end.step} updates, {self._seen[rank]} came")
            notes[rank] = bytes(end.payload)
        return notes

    # -- at staleness 0

    def _join(self, step: int, own: float | None) -> None:
        """Add everybody's update of one step in rank order; members that have ended count as zero."""
        self._peers.wait_for_word(f"step {step} of this epoch", self._active)
        updates = {rank: self._update_of(rank) for rank in sorted(self._active)}
        counts = {rank: _HEAD.unpack_from(update.payload)[0] for rank, update in updates.items() if update is not None}
        if own is not None:
            counts[self._peers.rank] = own
        total = sum(counts[rank] for rank in sorted(counts))
        for rank in sorted(counts):
            # Where everything is masked on every member nothing is weighed: the optimizers' momenta count alike.
            share = counts[rank] / total if total else 1 / len(counts)
            self._apply(rank, updates.get(rank), 1.0 if self._combine == "sum" else share)

    def _update_of(self, rank: int) -> Message | None:
        """Take a member's update; None when the member has ended instead, which stays to be read."""
        head = self._peers.head(rank)
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
        for rank in sorted(self._active):
            while (head := self._peers.head(rank)) is not None:
                if head.kind == Kind.END:
                    self._active.discard(rank)
                    break
                update = self._peers.take(rank, Kind.UPDATE)
                self._count(rank, update)
                self._apply(rank, update, self._planned(rank, update.step))
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
        return self._sizes[rank][step] / sum(sizes[step] for sizes in self._sizes if step < len(sizes))

    def _count(self, rank: int, update: Message) -> None:
        if update.step != self._seen[rank] or len(update.payload) < _HEAD.size:
            raise WireError(f"member {rank} sent step {update.step}, wanted {self._seen[rank]}")
        self._seen[rank] += 1

    def _apply(self, rank: int, update: Message | None, scale: float) -> None:
        if update is None:
            self._target.apply_own_(scale)
        else:
            self._target.apply_(memoryview(update.payload)[_HEAD.size :], scale)
