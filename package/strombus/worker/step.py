"""Minibatches to updates: the loop that every kind of training on a worker shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from strombus.networks import Replica
from strombus.stats import Recorder
from strombus.types import DataSet, MultiDataSet
from strombus.worker.hooks import TrainingHook, call_hooks

__all__ = ["StepTotals", "run_steps", "seed_torch"]


@dataclass(frozen=True, slots=True)
class StepTotals:
    """What a run of minibatches amounts to; `count` is what the losses averaged over."""

    steps: int
    examples: int
    count: float
    last_loss: float
    last_count: float


def run_steps(
    replica: Replica,
    batches: Iterable[DataSet | MultiDataSet],
    hooks: Sequence[TrainingHook],
    recorder: Recorder,
) -> StepTotals:
    """Fit each minibatch in turn."""
    steps = examples = 0
    count = last_loss = last_count = 0.0
    waiting = iter(batches)
    while True:
        with recorder.phase("data_wait"):
            batch = next(waiting, None)
        if batch is None:
            break
        call_hooks(hooks, "pre_update", batch, replica, recorder)
        with recorder.phase("fit", examples=batch.examples) as figures:
            result = replica.fit(batch)
            figures["loss"] = result.loss
        call_hooks(hooks, "post_update", batch, replica, recorder)
        steps += 1
        examples += result.examples
        count += result.count
        last_loss, last_count = result.loss, result.count
    return StepTotals(steps, examples, count, last_loss, last_count)


def seed_torch(replica: Replica, *numbers: int) -> None:
    """Seed torch's generators from `numbers`, such as (seed, epoch, rank)."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    # torch.manual_seed asks after every kind of device, half a millisecond each time.
    torch.default_generator.manual_seed(seed)
    if replica.device.type == "cuda":
        torch.cuda.manual_seed(seed)
