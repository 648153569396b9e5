"""What kinds of work the phases are, and how a run's time divides among them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from strombus.stats.track import Track
from strombus.stats.training import TrainingStats

__all__ = ["COVERING", "GROUPS", "IDLE", "Division", "divide", "group_of"]

GROUPS = {
    "computing": ("fit",),
    "encoding": ("encode",),
    "exchanging": ("exchange", "epoch_end", "settle", "aggregate", "connect"),
    "reading": ("data_wait",),
    "validating": ("validate",),
    "hooks": ("hook",),
    "preparing": ("init", "warm_up", "load", "export", "count", "split", "broadcast", "apply"),
    "waiting": ("submit", "round", "gang", "driver_wait"),
}
"""Kinds of work, and the phases that are of each; any other phase counts as preparing."""
IDLE = "idle"
"""The rest of a worker's time."""
COVERING = ("train", "epoch")
"""Phases that hold other phases."""

_ADVICE = {
    "encoding": "Updates are dear against the minibatches they come from: raise batch_size_per_worker.",
    "exchanging": "Raise batch_size_per_worker, let workers run further ahead (max_staleness), or send less "
    "(a lower max_target_sparsity).",
    "reading": "Raise worker_prefetch_num_batches, make the transform cheaper, or move the data closer.",
    "validating": "Validate on fewer rows, or, with early stopping, in fewer epochs (evaluate_every_n_epochs).",
    "hooks": "Do less in the training hooks: they run before and after each update.",
    "preparing": "Starting takes as long as it does however long the fit is: more epochs in one fit make it small.",
    "waiting": "A callback that needs the network makes the workers wait for the driver: do less in it.",
    IDLE: "Workers wait for the engine and, in averaging, for the mean of a round: raise averaging_frequency or "
    "batch_size_per_worker.",
}
_SAYS = {
    "computing": "computing",
    "encoding": "encoding updates",
    "exchanging": "exchanging",
    "reading": "waiting for data",
    "validating": "validating",
    "hooks": "in training hooks",
    "preparing": "preparing",
    "waiting": "waiting for the driver",
    IDLE: "idle",
}
_WELL, _MUCH, _WORTH = 0.8, 0.3, 0.05
"""Shares: of computing that leaves little to gain, of preparing that hides the rest, and of what is worth a word."""


def group_of(phase: str) -> str:
    """Return the kind of work that a phase is."""
    return next((group for group, phases in GROUPS.items() if phase in phases), "preparing")


@dataclass(frozen=True)
class Division:
    """How the workers' time divides: shares of it by kind of work, `IDLE` among them; they add up to 1."""

    shares: dict[str, float]

    @property
    def advice(self) -> str:
        """What the shares mean, and what to change."""
        if not self.shares:
            return "No worker has timed anything."
        shares, start = dict(self.shares), ""
        if shares.get("preparing", 0.0) > _MUCH:
            start = (
                f"Preparing took {shares.pop('preparing'):.0%} of the workers' time; it stays the same however long "
                "the fit is. Without it: "
            )
        whole = sum(shares.values())
        parts = sorted(((share / whole, group) for group, share in shares.items() if whole), reverse=True)
        text = ", ".join(f"{share:.0%} {_SAYS[group]}" for share, group in parts if share >= _WORTH)
        dearest = next((group for _, group in parts if group != "computing"), IDLE)
        computing = sum(share for share, group in parts if group == "computing")
        advice = "There is little to gain but by more workers." if computing >= _WELL else _ADVICE[dearest]
        return f"{start}{text[:1].upper() if not start else text[:1]}{text[1:]}. {advice}"


def divide(stats: TrainingStats) -> Division:
    """Return how the time of the worker processes divides, from their first event of each fit to their last."""
    workers = [track for track in stats.tracks if track.rank is not None]
    whole = sum(_seconds_at_work(stats, workers))
    spent: dict[str, float] = {}
    for track in workers:
        spent[group_of(track.name)] = spent.get(group_of(track.name), 0.0) + track.seconds
    whole = max(whole, sum(spent.values()))
    if not whole:
        return Division({})
    shares = {group: spent[group] / whole for group in GROUPS if group in spent}
    return Division({**shares, IDLE: max(0.0, 1 - sum(shares.values()))})


def _seconds_at_work(stats: TrainingStats, tracks: Iterable[Track]) -> Iterable[float]:
    """Yield, for each process and fit, the seconds from its first event to its last."""
    fits = [event.started for event in stats.values("train")] if "train" in stats.keys() else []  # noqa: SIM118
    spans: dict[str, list[np.ndarray]] = {}
    for track in tracks:
        table = track.table()[:, :2] + [stats.offset(track.host), 0]
        spans.setdefault(track.host, []).append(table)
    for tables in spans.values():
        started, seconds = np.concatenate(tables).T
        # A clock that is off by less than can be measured may put a fit's first events before its start.
        number = np.searchsorted(np.array(fits[1:]) - 0.05, started)
        for fit in np.unique(number):
            here = number == fit
            yield float((started[here] + seconds[here]).max() - started[here].min())
