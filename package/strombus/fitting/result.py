"""What a fit came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from strombus.callbacks import EpochRecord
from strombus.callbacks.tables import epoch_table, fact_table
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

    def summary(self) -> str:
        """Return one line: epochs, rows, time, score and validation."""
        if not self.epochs:
            return "nothing was trained"
        last = self.epochs[-1]
        figures = "".join(f", validation {name} {value:.4f}" for name, value in last.validation.items())
        ended = "" if self.stopped_by is None else f"; ended by {self.stopped_by}"
        epochs = f"{len(self.epochs)} epoch{'s' * (len(self.epochs) != 1)}"
        rows = f"{self.examples:,} rows in all, in {self.seconds:.1f} s"
        return f"{epochs}, {rows}: score {last.score:.4f}{figures}{ended}"

    def _repr_html_(self) -> str:
        facts = [("result", self.tried or self.summary()), ("seed", str(self.seed))]
        facts += [("failure", failure) for failure in self.failures]
        facts += [("left out", f"{count} minibatches by worker {worker}") for worker, count in self.skipped.items()]
        return fact_table("FitResult", facts) + epoch_table(self.epochs)
