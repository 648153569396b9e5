"""Residuals that cannot grow without end."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from strombus.compression.residuals.base import ResidualPostProcessor

__all__ = ["ResidualClippingPostProcessor"]


class ResidualClippingPostProcessor(ResidualPostProcessor):
    """Clip residuals to a few thresholds every few steps (DL4J: ``ResidualClippingPostProcessor``).

    Without new updates a residual of five thresholds takes five steps to send. What is clipped is lost, and counted.

    Parameters
    ----------
    threshold_multiple_value : float
        Thresholds that a residual may hold, at least 1.
    frequency : int
        Steps between two clippings; the first step of a run never clips.
    """

    name: ClassVar[str] = "clipping"

    threshold_multiple_value: float = Field(default=5.0, ge=1, alias="thresholdMultipleClipValue")
    frequency: int = Field(default=5, ge=1)

    def process_(self, residual: NDArray[Any] | Tensor, threshold: float, iteration: int) -> float:
        """Clip; see `ResidualPostProcessor.process_`."""
        if not iteration or iteration % self.frequency:
            return 0.0
        most = self.threshold_multiple_value * threshold
        if isinstance(residual, Tensor):
            clipped = residual.clamp(-most, most)
            removed = float((residual - clipped).abs().sum(dtype=torch.float64))
            residual.copy_(clipped)
            return removed
        from strombus.compression.kernels import clip  # not earlier: options are read without a compiler

        return float(clip(residual, residual.dtype.type(most)))
