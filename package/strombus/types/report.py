"""What one worker did since it last said so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["WorkerReport"]


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A worker's figures for a round of averaging, or since its last report in shared training.

    Parameters
    ----------
    worker : int
        Its rank, from zero; the same for the whole fit.
    iteration : int
        Minibatches of this worker's network since it was made, those averaged into it included.
    examples, minibatches : int
    loss : float
        Mean loss of its last minibatch.
    seconds : float
        What they took on the worker: in averaging without the time between rounds, in shared training since the last
        report or the epoch's beginning.
    where : str
        Host and process, ``"name:pid"``.
    figures : mapping of str to float
        Of shared training: ``threshold``, ``sent_share`` (sent elements to all elements) and ``sent_bytes``. Where
        minibatches were left out, their number: ``skipped``; where all of some was masked, theirs: ``uncounted``.
    """

    worker: int
    iteration: int
    examples: int
    minibatches: int
    loss: float
    seconds: float
    where: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
