"""What a fit came to."""

from __future__ import annotations

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
        Trained in this fit, over all workers and epochs.
    seconds : float
    seed : int
        The seed that governed the fit; give it as ``rng_seed`` to repeat it.
    stats : TrainingStats
        Timed phases; empty unless ``collect_training_stats``.
    stopped_by : str or None
        The class of the callback that said that the fit should end.
    failures : tuple of str
        Why attempts were given up, where workers were lost and the fit went on from a checkpoint.
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

    @property
    def score(self) -> float:
        """The last epoch's score; NaN when nothing was trained."""
        return self.epochs[-1].score if self.epochs else float("nan")
