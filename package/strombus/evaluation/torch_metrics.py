"""Let a torchmetrics metric be filled on workers and merged, by the reductions of its own states."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
from torchmetrics import Metric as TorchmetricsMetric
from torchmetrics.utilities.data import dim_zero_cat, dim_zero_max, dim_zero_min, dim_zero_sum

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation.base import Array, Metric

__all__ = ["TorchMetric"]

_REDUCTIONS: dict[Any, Any] = {dim_zero_sum: torch.add, dim_zero_max: torch.maximum, dim_zero_min: torch.minimum}


class TorchMetric(Metric):
    """A ``torchmetrics.Metric`` as a `Metric`.

    Those of ``torchmetrics.classification`` are given probabilities and integer labels, all others the
    module's output and the labels as they are: torchmetrics guesses from a batch's values whether they are
    logits, so that its figure could depend on the batches.

    Parameters
    ----------
    metric : torchmetrics.Metric
        A copy of it is filled, on the CPU.

    Raises
    ------
    ConfigurationError
        When its states cannot be merged: other than sums, extremes and lists.
    """

    def __init__(self, metric: TorchmetricsMetric) -> None:
        _check(metric)
        self.metric = copy.deepcopy(metric).to("cpu")
        self.metric.reset()
        self._classifies = type(metric).__module__.startswith("torchmetrics.classification")
        self.probabilities = self._classifies

    def add(self, labels: Array, output: Array, mask: Array | None = None) -> None:
        """Update with a batch; see `Metric.add`."""
        labels, output = self._fitted(np.asarray(labels), np.asarray(output))
        if mask is not None:
            labels, output = self._unmasked(labels, output, np.asarray(mask))
        if not len(labels):
            return
        try:
            self.metric.update(torch.from_numpy(output.copy()), torch.from_numpy(labels.copy()))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise DataError(
                f"{type(self.metric).__name__} cannot take an output of shape {output.shape} with labels of shape "
                f"{labels.shape}: {error}"
            ) from error

    def _fitted(self, labels: Array, output: Array) -> tuple[Array, Array]:
        if output.ndim == labels.ndim + 1 and output.shape[1] == 1:
            output = output[:, 0]
        if self._classifies:
            if type(self.metric).__name__.startswith("Multiclass") and labels.shape == output.shape:
                labels = labels.argmax(axis=1)
            labels = labels.astype(np.int64)
        return labels, output

    def _unmasked(self, labels: Array, output: Array, mask: Array) -> tuple[Array, Array]:
        keep = mask != 0
        if (keep & (mask != 1)).any():
            raise DataError(
                f"{type(self.metric).__name__} takes no weights: its mask must hold 0 and 1 alone; a metric of "
                "strombus.evaluation counts them, or leave them out with a transform"
            )
        if keep.shape in (labels.shape[:1], (*labels.shape[:1], 1)):
            keep = keep.reshape(-1)
            return labels[keep], output[keep]
        steps_last = np.moveaxis(output, 1, -1) if output.ndim > 1 else output
        if keep.shape == steps_last.shape[:-1]:
            return (np.moveaxis(labels, 1, -1) if labels.ndim == output.ndim else labels)[keep], steps_last[keep]
        if keep.shape == labels.shape == output.shape and not self._classifies:
            return labels[keep], output[keep]
        raise DataError(
            f"a mask of shape {mask.shape} does not fit {type(self.metric).__name__} and an output of {output.shape}"
        )

    def merge(self, other: Self) -> Self:
        """Add another metric's states to this one's and return it."""
        mine, theirs = self.metric, other.metric
        for name, reduction in mine._reductions.items():
            left, right = getattr(mine, name), getattr(theirs, name)
            if isinstance(left, list):
                merged: Any = [*left, *right]
            elif reduction is dim_zero_cat:
                merged = torch.cat([left, right])
            else:
                merged = _REDUCTIONS[reduction](left, right)
            setattr(mine, name, merged)
        mine._update_count += theirs._update_count
        mine._computed = None
        return self

    def fresh(self) -> Self:
        """Return one with the same settings and no data."""
        return type(self)(self.metric)

    def stats(self) -> str:
        """Return the computed figure as text."""
        return f"{type(self.metric).__name__} {self.metric.compute()}"


def _check(metric: TorchmetricsMetric) -> None:
    name = type(metric).__name__
    wraps = any(isinstance(part, TorchmetricsMetric) for part in list(metric.modules())[1:])
    if wraps or not metric._defaults:
        raise ConfigurationError(
            f"{name} has no states of its own to merge: give the metrics inside it, and combine what they find"
        )
    for state, reduction in metric._reductions.items():
        listed = isinstance(metric._defaults[state], list) and reduction in (None, dim_zero_cat)
        if not listed and reduction is not dim_zero_cat and reduction not in _REDUCTIONS:
            raise ConfigurationError(
                f"{name} cannot be merged from partitions: its state {state!r} is reduced by "
                f"{getattr(reduction, '__name__', reduction)}; only sums, extremes and lists give what one pass gives"
            )
