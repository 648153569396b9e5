"""Evaluate one partition of the data: outputs against labels, in any number of metrics at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import Evaluation, Metric
from strombus.networks import Replica
from strombus.networks.losses import Loss
from strombus.types import DataSet, MultiDataSet
from strombus.worker.scoring import ScoringWork

__all__ = ["evaluate_batches", "evaluate_part", "merge_metrics"]

Array = NDArray[Any]


def evaluate_part(work: ScoringWork, part: Any) -> tuple[Metric, ...]:
    """Run all metrics over a partition in one pass."""
    metrics = tuple(metric.fresh() for metric in work.metrics)
    assert work.passes is not None
    judge = partial(_judge, metrics, work.outputs)
    for judged in work.passes.run(work.batches(part), judge, work.passes.divide_threads()):
        _add(metrics, judged)
    return metrics


def evaluate_batches(
    replica: Replica,
    batches: Iterable[DataSet | MultiDataSet],
    metrics: Sequence[Metric],
    outputs: Sequence[int] = (),
) -> None:
    """Add minibatches to all metrics, in one pass.

    Parameters
    ----------
    outputs : sequence of int
        The output that each metric judges; empty for the first.
    """
    for batch in batches:
        _add(metrics, _judge(metrics, outputs, replica, batch))


def merge_metrics(left: tuple[Metric, ...], right: tuple[Metric, ...]) -> tuple[Metric, ...]:
    """Merge two partitions' metrics one by one, into new ones."""
    return tuple(a.fresh().merge(a).merge(b) for a, b in zip(left, right, strict=True))


def _add(metrics: Sequence[Metric], judged: Sequence[tuple[Array, Array, Array | None]]) -> None:
    for metric, (labels, predictions, mask) in zip(metrics, judged, strict=True):
        metric.add(labels, predictions, mask)


def _judge(
    metrics: Sequence[Metric], outputs: Sequence[int], replica: Replica, batch: DataSet | MultiDataSet
) -> list[tuple[Array, Array, Array | None]]:
    """Return, for each metric, the labels, the predictions it wants, and the mask; no metric is changed."""
    given = replica.forward(batch)
    tensors = given if isinstance(given, tuple) else (given,)
    numbers = outputs or (0,) * len(metrics)
    found: list[tuple[Array, Array, Array | None]] = [None] * len(metrics)  # type: ignore[list-item]
    for number in dict.fromkeys(numbers):
        if number >= len(tensors):
            raise ConfigurationError(f"there is no output {number} to evaluate: the module gives {len(tensors)}")
        places = [place for place, output in enumerate(numbers) if output == number]
        rows = _judge_output(replica, batch, number, tensors[number], [metrics[place] for place in places])
        for place, row in zip(places, rows, strict=True):
            found[place] = row
    return found


def _judge_output(
    replica: Replica, batch: DataSet | MultiDataSet, number: int, output: Tensor, metrics: Sequence[Metric]
) -> list[tuple[Array, Array, Array | None]]:
    loss = _loss_of(replica, number)
    labels, mask = _labels(batch, number)
    if mask is None or mask.size == len(mask):
        steps = _stand_in(batch, loss, output, labels)
        mask = steps if mask is None else mask if steps is None else _weighed(steps, mask)
    mask = _without_ignored(loss, labels, output, mask)
    raw = output.cpu().numpy()
    wanted = [loss is not None and _wants(metric, raw) for metric in metrics]
    likely = loss.probabilities(output).cpu().numpy() if loss is not None and any(wanted) else raw
    return [(labels, likely if probabilities else raw, mask) for probabilities in wanted]


def _wants(metric: Metric, output: Array) -> bool:
    """Say whether to give probabilities: ranks are those of the logits, at half the memory for a large vocabulary."""
    if isinstance(metric, Evaluation) and metric.ranks_only and output.ndim > 1:
        return bool(output.shape[metric.axis] == 1)
    return metric.probabilities


def _loss_of(replica: Replica, number: int) -> Loss | None:
    if replica.objective is None:
        return None
    losses = replica.objective.losses
    return losses[number] if number < len(losses) else losses[0] if len(losses) == 1 else None


def _labels(batch: DataSet | MultiDataSet, number: int) -> tuple[Array, Array | None]:
    several = isinstance(batch, MultiDataSet)
    labels = batch.labels if several else (batch.labels,) * (batch.labels is not None)
    masks = batch.labels_masks if isinstance(batch, MultiDataSet) else (batch.labels_mask,)
    if number >= len(labels) or labels[number] is None:
        what = f"; there are none for output {number}" if number and labels else "; the data has none"
        raise DataError(f"evaluation needs labels{what}")
    return labels[number], masks[number]


def _stand_in(batch: DataSet | MultiDataSet, loss: Loss | None, output: Tensor, labels: Array) -> Array | None:
    """Let the only features mask stand in for a missing labels mask where it has an entry for each step."""
    masks = batch.features_masks if isinstance(batch, MultiDataSet) else (batch.features_mask,)
    given = [mask for mask in masks if mask is not None]
    if len(given) != 1:
        return None
    mask: Array = given[0]
    shape = tuple(output.shape)
    if output.ndim > 2 and mask.shape in (shape[:1] + shape[2:], shape[:-1]):
        return mask
    steps = loss is not None and loss.takes(output, *(torch.from_numpy(a).to(output.device) for a in (labels, mask)))
    return mask if steps else None


def _weighed(steps: Array, weights: Array) -> Array:
    """Weigh an example's steps by its own weight; a mask of the same shape stands for itself."""
    return weights if steps.shape == weights.shape else steps * weights.reshape(-1, *[1] * (steps.ndim - 1))


def _without_ignored(loss: Loss | None, labels: Array, output: Tensor, mask: Array | None) -> Array | None:
    """Mask what the loss ignores too (``ignore_index``): it is no class."""
    ignored = None if loss is None else loss.ignored
    if ignored is None or labels.dtype.kind not in "iu" or labels.ndim >= output.ndim:
        return mask
    counts = labels != ignored
    if counts.all():
        return mask
    if mask is None:
        return np.asarray(counts)
    missing = counts.ndim - mask.ndim
    return np.where(
        counts, mask.reshape(mask.shape + (1,) * missing) if missing >= 0 else mask.reshape(counts.shape), 0
    )
