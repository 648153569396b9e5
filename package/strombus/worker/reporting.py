"""What a member of shared training tells the driver while it works."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from strombus.compression import Update
from strombus.executors.base import Member
from strombus.networks import Replica, StepResult
from strombus.networks.parcels import pack_state
from strombus.stats import Ear, Recorder, where
from strombus.types import DataSet, Event, MultiDataSet, NetworkState

__all__ = ["Reports", "tell_said"]

_EVERY = 0.5
"""Seconds between two reports to the driver."""
_CHUNK = 2**22
"""Bytes of a state that travel to the driver in one record."""


@dataclass
class _Figures:
    """What is reported to the driver: sums since the last report, and the latest values."""

    examples: int = 0
    minibatches: int = 0
    skipped: int = 0
    uncounted: int = 0
    sent: int = 0
    elements: int = 0
    loss: float = float("nan")
    count: float = 0.0
    threshold: float = 0.0

    def take(self) -> dict[str, Any]:
        """Return the figures and start new sums."""
        found = dict(vars(self))
        self.examples = self.minibatches = self.skipped = self.uncounted = self.sent = self.elements = 0
        return found


class Reports:
    """The reports of one member.

    Attributes
    ----------
    skipped : int
        Minibatches that were left out.
    """

    def __init__(self, member: Member, replica: Replica, recorder: Recorder, ear: Ear) -> None:
        self._member, self._replica, self._recorder, self._ear = member, replica, recorder, ear
        self._where = where()
        self._figures = _Figures()
        self._since = self._told = 0.0
        self.skipped = 0

    def begin(self) -> None:
        """Start the clock of what is reported next."""
        self._since = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for another report."""
        return time.monotonic() - self._told > _EVERY

    def count(self, batch: DataSet | MultiDataSet, update: Update, result: StepResult | None) -> None:
        """Count a step; None for a minibatch that was left out."""
        figures = self._figures
        figures.examples += batch.examples
        figures.minibatches += 1
        figures.sent += update.nbytes
        figures.elements += update.count
        if result is None:
            figures.skipped += 1
            self.skipped += 1
        else:
            figures.uncounted += not result.count
            figures.loss, figures.count, figures.threshold = result.loss, result.count, update.threshold

    def tell(self, name: str, epoch: int, more: dict[str, Any]) -> None:
        """Report what happened since the last report."""
        now = time.monotonic()
        seconds, self._since, self._told = now - self._since, now, now
        values = {
            "epoch": epoch,
            "iteration": self._replica.iteration,
            "length": len(self._replica.flat.vector),
            **self._figures.take(),
            **more,
        }
        self._member.report(Event(name, self._member.rank, time.time(), seconds, self._where, values))
        self.tell_timings()
        tell_said(self._member, self._ear)

    def tell_timings(self) -> None:
        """Report what was timed since the last report, so that no member keeps a whole fit's."""
        if self._recorder.enabled:
            timings = self._recorder.take().pack()
            self._member.report(Event("timings", self._member.rank, time.time(), payload=timings))

    def tell_encoding(self, epoch: int, statistics: dict[str, Any]) -> None:
        """Report how a step was encoded."""
        values = {"epoch": epoch, "iteration": self._replica.iteration, **statistics}
        self._member.report(Event("encoding", self._member.rank, time.time(), values=values))

    def tell_state(self, epoch: int, state: NetworkState) -> None:
        """Hand an epoch's network to the driver."""
        data = pack_state(state)
        for start in range(0, len(data), _CHUNK):
            values = {"epoch": epoch, "last": start + _CHUNK >= len(data)}
            self._member.report(Event("state", 0, values=values, payload=data[start : start + _CHUNK]))


def tell_said(member: Member, ear: Ear) -> None:
    """Hand to the driver what this process has logged since the last call."""
    if said := ear.take():
        member.report(Event("said", member.rank, time.time(), host=ear.place, values={"said": said}))
