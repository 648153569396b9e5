"""A network's normalizer at work: minibatches scaled on the way in, outputs in the labels' own units on the way out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from strombus.normalizers import Normalizer
from strombus.types import DataSet, MultiDataSet

__all__ = ["normalized", "reverted"]


def normalized(
    normalizer: Normalizer | None, batch: DataSet | MultiDataSet, dtype: torch.dtype
) -> DataSet | MultiDataSet:
    """Return the minibatch as the module and its losses are to see it; `dtype` is the network's."""
    if normalizer is None:
        return batch
    # Otherwise in the arrays' own type: subtracting a mean from float64 loses digits in the network's float32.
    return normalizer(batch, np.float64 if dtype == torch.float64 else None)


def reverted(normalizer: Normalizer | None, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the outputs in the labels' own units, where labels are scaled."""
    if normalizer is None or not normalizer.fit_labels:
        return outputs
    return tuple(_reverted(normalizer, f"labels_{number}", output) for number, output in enumerate(outputs))


def _reverted(normalizer: Normalizer, name: str, output: Tensor) -> Tensor:
    scaling = normalizer.shaped(name, tuple(output.shape))
    if scaling is None:
        return output
    scale, center = (torch.as_tensor(array, dtype=output.dtype, device=output.device) for array in scaling[1::-1])
    return (output - scaling.offset) * scale + center
