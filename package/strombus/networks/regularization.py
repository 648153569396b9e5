"""L1, L2 and weight decay, as Deeplearning4j counts them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Amount", "Regularization"]

Amount = float | Mapping[str, float]
"""One number for all weights (parameters of two dimensions or more, so no biases), or one for each parameter named."""


@dataclass(frozen=True)
class Regularization:
    """``l1 * sum|W| + (l2 + weight_decay) / 2 * sum W**2``; the optimizer itself takes care of weight decay."""

    l1: Amount = 0.0
    l2: Amount = 0.0
    weight_decay: Amount = 0.0

    def __bool__(self) -> bool:
        return bool(self.l1 or self.l2 or self.weight_decay)

    def value(self, parameters: Mapping[str, Tensor]) -> float:
        """Return the terms' sum over parameters by name."""
        with torch.no_grad():
            total = sum(amount * float(weight.abs().sum()) for weight, amount in _each(self.l1, parameters))
            for squared in (self.l2, self.weight_decay):
                total += sum(amount / 2 * float(weight.square().sum()) for weight, amount in _each(squared, parameters))
        return total

    def add_gradient_(self, parameters: Mapping[str, Tensor]) -> None:
        """Add the gradient of the L1 and L2 terms to the parameters' own."""
        with torch.no_grad():
            for weight, amount in _each(self.l2, parameters):
                _gradient(weight).add_(weight, alpha=amount)
            for weight, amount in _each(self.l1, parameters):
                _gradient(weight).add_(weight.sign(), alpha=amount)


def _each(amount: Amount, parameters: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, float]]:
    for name, parameter in parameters.items():
        general = 0.0 if isinstance(amount, Mapping) or parameter.ndim < 2 else amount
        own = amount.get(name, 0.0) if isinstance(amount, Mapping) else general
        if own:
            yield parameter, own


def _gradient(weight: Tensor) -> Tensor:
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad
