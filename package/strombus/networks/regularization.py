"""L1 and L2 terms over the weights, as Deeplearning4j counts them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Regularization"]


@dataclass(frozen=True)
class Regularization:
    """``l1 * sum|W| + l2 / 2 * sum W**2`` over the parameters of two dimensions or more; biases are left out."""

    l1: float = 0.0
    l2: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.l1 or self.l2)

    def value(self, parameters: Iterable[nn.Parameter]) -> float:
        """Return the terms' sum."""
        total = 0.0
        with torch.no_grad():
            for weight in self._weights(parameters):
                if self.l1:
                    total += self.l1 * float(weight.abs().sum())
                if self.l2:
                    total += self.l2 / 2 * float(weight.square().sum())
        return total

    def add_gradient_(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the terms' gradient to the parameters' own."""
        with torch.no_grad():
            for weight in self._weights(parameters):
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                if self.l2:
                    weight.grad.add_(weight, alpha=self.l2)
                if self.l1:
                    weight.grad.add_(weight.sign(), alpha=self.l1)

    def _weights(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        return [parameter for parameter in parameters if parameter.ndim >= 2] if self else []
