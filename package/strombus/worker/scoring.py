"""Score, evaluate and predict one partition of the data; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.data import Source, epoch_order, read_batches, rebatch
from strombus.errors import DataError
from strombus.evaluation import Metric
from strombus.networks import Network, Replica
from strombus.partitioning import batch_sizes
from strombus.types import DataSet, MultiDataSet
from strombus.worker.bench import Workbench

__all__ = [
    "LossSum",
    "ScoringWork",
    "evaluate_batches",
    "evaluate_part",
    "merge_losses",
    "merge_metrics",
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


def evaluate_part(work: ScoringWork, part: Any) -> tuple[Metric, ...]:
    """Run all metrics over a partition in one pass."""
    metrics = tuple(metric.fresh() for metric in work.metrics)
    with work.bench.replica_of(work.network) as replica:
        evaluate_batches(replica, work.batches(part), metrics)
    return metrics


def evaluate_batches(replica: Replica, batches: Iterable[DataSet | MultiDataSet], metrics: Sequence[Metric]) -> None:
    """Add minibatches to all metrics, in one pass."""
    for batch in batches:
        labels, output, mask = _first_output(replica, batch)
        for metric in metrics:
            metric.add(labels, output, mask)


def merge_metrics(left: tuple[Metric, ...], right: tuple[Metric, ...]) -> tuple[Metric, ...]:
    """Merge two partitions' metrics one by one, into new ones."""
    return tuple(a.fresh().merge(a).merge(b) for a, b in zip(left, right, strict=True))


def predict_part(work: ScoringWork, part: Any) -> tuple[NDArray[Any], ...]:
    """Return the network's outputs for a partition, one array for each output."""
    with work.bench.replica_of(work.network) as replica:
        rows = [_outputs(replica, batch) for batch in work.batches(part)]
    return tuple(np.concatenate(arrays) for arrays in zip(*rows, strict=True))


def _outputs(replica: Replica, batch: DataSet | MultiDataSet) -> tuple[NDArray[Any], ...]:
    outputs = replica.forward(batch)
    return tuple(output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,)))


def _first_output(
    replica: Replica, batch: DataSet | MultiDataSet
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    output = _outputs(replica, batch)[0]
    if isinstance(batch, MultiDataSet):
        labels = batch.labels[0] if batch.labels else None
        mask = batch.labels_masks[0] if batch.labels_masks else None
    else:
        labels, mask = batch.labels, batch.labels_mask
        if mask is None and output.ndim > 2:
            mask = batch.features_mask
    if labels is None:
        raise DataError("evaluation needs labels; the data has none")
    return labels, output, _without_ignored(replica, labels, output, mask)


def _without_ignored(
    replica: Replica, labels: NDArray[Any], output: NDArray[Any], mask: NDArray[Any] | None
) -> NDArray[Any] | None:
    """Mask what the loss ignores too (``ignore_index``): it is no class."""
    ignored = replica.objective.losses[0].ignored if replica.objective is not None else None
    if ignored is None or labels.dtype.kind not in "iu" or labels.ndim >= output.ndim:
        return mask
    counts = labels != ignored
    if counts.all():
        return mask
    if mask is not None:
        counts = counts & (mask.reshape(mask.shape + (1,) * (counts.ndim - mask.ndim)) != 0)
    return np.asarray(counts)
