"""The interface of a metric logger."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from strombus.callbacks.base import Callback, EpochRecord
from strombus.masters.job import Progress
from strombus.types import WorkerReport

__all__ = ["Entry", "MetricLogger"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is logged at one moment of one worker, or of the whole fit.

    Parameters
    ----------
    time : float
        Seconds since the Unix epoch.
    epoch : int
        Counted from 1 since the network was made.
    iteration : int
        Minibatches since the network was made.
    worker : int or None
        The worker's rank, the same for the whole fit; None for an epoch of all workers.
    figures : mapping of str to float
        Of a worker: ``loss``, ``examples``, ``examples_per_second`` and, in shared training, ``threshold``,
        ``sent_share`` and ``sent_bytes``. Of an epoch: ``score``, ``examples``, ``seconds`` and each validation figure
        as ``validation_<name>``.
    where : str
        The worker's host and process.
    """

    time: float
    epoch: int
    iteration: int
    worker: int | None
    figures: Mapping[str, float]
    where: str = ""

    @property
    def source(self) -> str:
        """Who is logged of: ``worker-3``, or ``all``."""
        return "all" if self.worker is None else f"worker-{self.worker}"


class MetricLogger(Callback, ABC):
    """Turns what a fit tells into entries; subclasses say where they go."""

    passive = True

    @abstractmethod
    def log(self, entry: Entry) -> None:
        """Take one entry."""

    def on_round(self, progress: Progress) -> None:
        now = time.time()
        for report in progress.workers:
            if report.minibatches:
                figures = _figures(report)
                self.log(Entry(now, progress.epoch + 1, report.iteration, report.worker, figures, report.where))

    def on_epoch_end(self, record: EpochRecord) -> None:
        figures = {"score": record.score, "examples": record.examples, "seconds": record.seconds}
        figures |= {f"validation_{name}": value for name, value in record.validation.items()}
        self.log(Entry(time.time(), record.epoch, record.iteration, None, figures))


def _figures(report: WorkerReport) -> dict[str, float]:
    speed = {"examples_per_second": report.examples / report.seconds} if report.seconds else {}
    return {"loss": report.loss, "examples": report.examples, **speed, **report.figures}
