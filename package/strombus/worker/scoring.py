"""Score and predict one partition of the data; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.data import Source, epoch_order, read_batches, rebatch
from strombus.evaluation import Metric
from strombus.networks import Network, Replica
from strombus.partitioning import batch_sizes
from strombus.types import DataSet, MultiDataSet
from strombus.worker.bench import Workbench

__all__ = [
    "LossSum",
    "ScoringWork",
    "merge_losses",
    "predict_part",
    "score_batches",
    "score_part",
]


@dataclass(frozen=True)
class ScoringWork:
    """What stays the same for all partitions; shared with the workers once."""

    network: Network
    source: Source | None  # None: the parts are an engine's own partitions
    batch_size: int
    metrics: tuple[Metric, ...] = ()
    outputs: tuple[int, ...] = ()  # which output each metric judges; empty: the first
    bench: Workbench = field(default_factory=Workbench)

    def batches(self, part: Any) -> Iterator[DataSet | MultiDataSet]:
        """Yield the minibatches of a partition: rows of the source, or objects that an engine has opened."""
        if self.source is None:
            yield from rebatch(part, self.batch_size)
            return
        order = epoch_order(self.source.blocks(), seed=0, epoch=0, shuffle=False)
        sizes = batch_sizes(part.rows, self.batch_size, "keep")
        with read_batches(
            self.source, order, part.start, part.stop, sizes, seed=0, epoch=0, shuffle=False, prefetch=2
        ) as batches:
            yield from batches


@dataclass(frozen=True, slots=True)
class LossSum:
    """Sum of losses and what they averaged over."""

    total: float = 0.0
    count: float = 0.0


def score_part(work: ScoringWork, part: Any) -> LossSum:
    """Sum the loss over a partition, without regularisation."""
    with work.bench.replica_of(work.network) as replica:
        return score_batches(replica, work.batches(part))


def score_batches(replica: Replica, batches: Iterable[DataSet | MultiDataSet]) -> LossSum:
    """Sum the loss over minibatches, without regularisation."""
    total = count = 0.0
    for batch in batches:
        loss, terms = replica.score(batch)
        total += loss * terms
        count += terms
    return LossSum(total, count)


def merge_losses(left: LossSum, right: LossSum) -> LossSum:
    """Add two sums."""
    return LossSum(left.total + right.total, left.count + right.count)


def predict_part(work: ScoringWork, part: Any) -> tuple[NDArray[Any], ...]:
    """Return the network's outputs for a partition, one array for each output."""
    with work.bench.replica_of(work.network) as replica:
        rows = [_outputs(replica, batch) for batch in work.batches(part)]
    return tuple(np.concatenate(arrays) for arrays in zip(*rows, strict=True))


def _outputs(replica: Replica, batch: DataSet | MultiDataSet) -> tuple[NDArray[Any], ...]:
    outputs = replica.forward(batch)
    return tuple(output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,)))
