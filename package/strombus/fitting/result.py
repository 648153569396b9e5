"""What a fit came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strombus.callbacks import EpochRecord
from strombus.networks import Network
from strombus.stats import TrainingStats

__all__ = ["FitResult"]


@dataclass(frozen=True)
class FitResult:
    """What a fit came to.

    Parameters
    ----------
    network : Network
        The trained network, the one the trainer holds.
    epochs : tuple of EpochRecord
    examples, minibatches : int
        Trained in this fit, over all workers and epochs; what was left out is among them.
    seconds : float
    seed : int
        The seed that governed the fit; give it as ``rng_seed`` to repeat it.
    stats : TrainingStats
        Timed phases; empty unless ``collect_training_stats``.
    stopped_by : str or None
        The class of the callback that said that the fit should end.
    failures : tuple of str
        Why attempts were given up, where workers were lost, or numbers not finite, and the fit went on from a
        checkpoint; or who was lost, where the others went on without, and how many rows were dealt anew.
    skipped : mapping of int to int
        Minibatches that each worker has left out (see ``on_nonfinite`` of the masters); empty where none has.
    tried : str or None
        Of a dry run (``fast_dev_run``), what it tried.
    """

    network: Network
    epochs: tuple[EpochRecord, ...]
    examples: int
    minibatches: int
    seconds: float
    seed: int
    stats: TrainingStats = field(repr=False)
    stopped_by: str | None = None
    failures: tuple[str, ...] = ()
    skipped: Mapping[int, int] = field(default_factory=dict)
    tried: str | None = None

    @property
    def score(self) -> float:
        """The last epoch's score; NaN when nothing was trained."""
        return self.epochs[-1].score if self.epochs else float("nan")
