"""Minibatches to updates: the loop that every kind of training on a worker shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from strombus.networks import Replica
from strombus.networks.copies import DRAWING
from strombus.stats import Recorder
from strombus.types import DataSet, MultiDataSet
from strombus.worker.guarding import Guard
from strombus.worker.hooks import TrainingHook, call_hooks

__all__ = ["StepTotals", "run_steps", "seed_torch"]


@dataclass(slots=True)
class StepTotals:
    """What a run of minibatches amounts to.

    `steps` and `examples` count all of them, `skipped` those that were left out. `count` is what the losses of the
    others averaged over, `last_loss` and `last_count` are the last one's of these. `uncounted` are those of the others
    whose losses are a mean over nothing: all is masked, or has no weight.
    """

    steps: int = 0
    examples: int = 0
    skipped: int = 0
    uncounted: int = 0
    count: float = 0.0
    last_loss: float = 0.0
    last_count: float = 0.0

    @property
    def taken(self) -> int:
        """Steps that the optimizer has taken."""
        return self.steps - self.skipped


def run_steps(
    replica: Replica,
    batches: Iterable[DataSet | MultiDataSet],
    hooks: Sequence[TrainingHook],
    recorder: Recorder,
    guard: Guard,
    place: tuple[int, int, int],
) -> StepTotals:
    """Fit each minibatch in turn; `place` is the epoch, the worker and the round."""
    totals = StepTotals()
    waiting = iter(batches)
    while True:
        with recorder.phase("data_wait"):
            batch = next(waiting, None)
        if batch is None:
            break
        here = (*place, totals.steps)
        totals.steps += 1
        totals.examples += batch.examples
        if guard.leaves_out(here):
            totals.skipped += 1
            continue
        call_hooks(hooks, "pre_update", batch, replica, recorder)
        with recorder.phase("fit", examples=batch.examples) as figures:
            result = guard.attempt(here, partial(replica.fit, batch))
            figures.update({"skipped": 1} if result is None else {"loss": result.loss})
        call_hooks(hooks, "post_update", batch, replica, recorder)
        if result is None:
            totals.skipped += 1
        else:
            totals.count += result.count
            totals.uncounted += not result.count
            totals.last_loss, totals.last_count = result.loss, result.count
    if totals.taken:
        guard.check_parameters((*place, totals.steps - 1))
    return totals


def seed_torch(replica: Replica, *numbers: int) -> None:
    """Seed torch's generators from `numbers`, such as (seed, epoch, rank)."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    # torch.manual_seed asks after every kind of device, half a millisecond each time.
    with DRAWING.hold():
        torch.default_generator.manual_seed(seed)
    if replica.device.type == "cuda":
        with torch.cuda.device(replica.device):
            torch.cuda.manual_seed(seed)
