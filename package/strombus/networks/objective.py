"""The losses of all outputs as one figure to minimise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from strombus.errors import ConfigurationError, DataError
from strombus.networks.losses import Loss
from strombus.networks.tensors import Tensors

__all__ = ["Objective"]

LossFunction = Callable[[Tensor, Tensor], Tensor]


class Objective:
    """Sum of the outputs' losses, each times its weight.

    Parameters
    ----------
    losses : sequence of Loss
        One for each output, or a single one that serves every output.
    weights : sequence of float, optional
        One for each output; 1 each by default.

    Notes
    -----
    The count of a minibatch is the mean of its outputs' counts. Where these differ from output to output
    (different masks), no single count makes averaging over workers exact; where they agree it is. Scores are
    exact in any case: they add up `sums`.
    """

    def __init__(self, losses: Sequence[Loss], weights: Sequence[float] | None = None) -> None:
        self.losses = tuple(losses)
        self.weights = None if weights is None else tuple(float(weight) for weight in weights)
        if self.weights is not None and len(self.losses) not in (1, len(self.weights)):
            raise ConfigurationError(
                f"loss_weights needs one weight for each output: {len(self.losses)} losses, {len(self.weights)} weights"
            )

    def to(self, device: torch.device) -> Objective:
        """Return an objective of its own whose tensors are on `device`."""
        return Objective([loss.to(device) for loss in self.losses], self.weights)

    def mean(self, outputs: tuple[Tensor, ...], batch: Tensors) -> tuple[Tensor, float]:
        """Return the minibatch's objective, which can be differentiated, and its count."""
        values: list[Tensor] = []
        counts: list[float] = []
        for loss, output, labels, mask in self._rows(outputs, batch):
            value, count = loss.mean(output, labels, mask)
            values.append(value)
            counts.append(count)
        return self._sum(values), sum(counts) / len(counts)

    def sums(self, outputs: tuple[Tensor, ...], batch: Tensors) -> list[tuple[float, float]]:
        """Return, for each output, the weighted sum of its terms' losses and their count.

        Sums over several minibatches add up exactly, also where the outputs' counts differ.
        """
        weights = self.weights or (1.0,) * len(outputs)
        means = [loss.mean(*row) for loss, *row in self._rows(outputs, batch)]
        return [(float(value) * count * weight, count) for (value, count), weight in zip(means, weights, strict=True)]

    def per_example(self, outputs: tuple[Tensor, ...], batch: Tensors) -> Tensor:
        """Return the objective of each example, shape (examples,)."""
        return self._sum([loss.per_example(*row) for loss, *row in self._rows(outputs, batch)])

    def _sum(self, values: list[Tensor]) -> Tensor:
        if self.weights is not None:
            values = [value * weight for value, weight in zip(values, self.weights, strict=True)]
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total

    def _rows(self, outputs: tuple[Tensor, ...], batch: Tensors) -> list[Any]:
        """Pair each output with its loss, its labels and the mask that counts."""
        wanted = len(outputs)
        if len(batch.labels) != wanted:
            what = "no labels" if not batch.labels else f"labels for {len(batch.labels)}"
            raise DataError(f"the module gives {wanted} output(s), the data has {what}")
        given = len(self.losses) if self.weights is None else len(self.weights)
        if given not in (1, wanted) or (self.weights is not None and given != wanted):
            raise ConfigurationError(
                f"the module gives {wanted} outputs, the network has losses or weights for {given}"
            )
        losses = self.losses * wanted if len(self.losses) == 1 else self.losses
        masks = (self._mask(*row, batch) for row in zip(losses, outputs, batch.labels, batch.labels_masks, strict=True))
        return list(zip(losses, outputs, batch.labels, masks, strict=True))

    @staticmethod
    def _mask(loss: Loss, output: Tensor, labels: Tensor, mask: Tensor | None, batch: Tensors) -> Tensor | None:
        """Let the only features mask stand in for a labels mask by step where the loss has a term for each step.

        One with an entry for each example, such as sample weights, multiplies it.
        """
        present = [candidate for candidate in batch.features_masks if candidate is not None]
        by_step = mask is not None and (mask.numel() > len(mask) or not present or present[0].shape == mask.shape)
        if by_step or len(present) != 1 or not loss.takes(output, labels, present[0]):
            return mask
        (steps,) = present
        return steps if mask is None else steps * mask.reshape(-1, *(1,) * (steps.ndim - 1))
