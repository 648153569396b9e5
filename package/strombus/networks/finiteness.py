"""Whether numbers are finite, and what to say where they are not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from strombus.types import DataSet, MultiDataSet

__all__ = ["count_nonfinite", "explain_gradient", "explain_loss", "explain_parameters", "gradient_norm", "is_finite"]


def count_nonfinite(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Return how many values are NaN or infinite in each array that has such."""
    counts = {
        name: int(array.size - np.isfinite(array).sum()) for name, array in arrays.items() if array.dtype.kind == "f"
    }
    return {name: count for name, count in counts.items() if count}


def is_finite(values: Tensor) -> bool:
    """Say whether all values are finite; one pass over memory, as a rule."""
    # A finite sum has finite terms only; one that is not may have overflowed.
    return math.isfinite(values.detach().sum().item()) or bool(torch.isfinite(values).all())


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the 2-norm of all gradients together, infinite where a square overflows, as optimizers take it."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())


def explain_loss(
    loss: float, iteration: int, batch: DataSet | MultiDataSet, parameters: Mapping[str, Tensor]
) -> tuple[str, str]:
    """Say where a loss that is not finite comes from, and what is not: looks at data and parameters only now."""
    start = f"the loss became {loss} in minibatch {iteration}"
    if bad := count_nonfinite(batch.columns()):
        return f"{start}: the data contains NaN or infinite values ({_listed(bad)}); clean it before training", "loss"
    if bad := _count(parameters):
        reason = f"the parameters were NaN or infinite before it ({_listed(bad)}), features and labels are finite"
        return f"{start}: {reason}; {_ADVICE}", "parameters"
    reason = "features, labels and parameters are finite, so the network's arithmetic is at fault"
    return f"{start}: {reason}; {_ADVICE}", "loss"


def explain_parameters(iteration: int, parameters: Mapping[str, Tensor]) -> str:
    """Say which parameters are not finite after a step whose loss was."""
    listed = _listed(_count(parameters))
    return f"the parameters became NaN or infinite in minibatch {iteration} ({listed}), its loss was finite; {_ADVICE}"


def explain_gradient(loss: float, iteration: int, gradients: Mapping[str, Tensor]) -> str:
    """Say which gradients are not finite, where the loss is."""
    bad = _count(gradients)
    what = "became NaN or infinite" if bad else "became so large that its squares overflow"
    listed = f" ({_listed(bad)})" if bad else ""
    return f"the gradient {what} in minibatch {iteration}{listed}, the loss is {loss:g}; {_ADVICE}"


_ADVICE = "lower the learning rate, clip gradients (the network's clip_grad_norm), or see on_nonfinite"


def _count(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    counts = {name: int((~torch.isfinite(tensor)).sum()) for name, tensor in tensors.items()}
    return {name: count for name, count in counts.items() if count}


def _listed(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {count}" for name, count in list(counts.items())[:_SHOWN]]
    return ", ".join([*shown, "..."] if len(counts) > _SHOWN else shown)


_SHOWN = 10
"""Tensors that an error names."""
