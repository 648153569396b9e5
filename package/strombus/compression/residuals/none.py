"""Residuals as they are."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor

from strombus.compression.residuals.base import ResidualPostProcessor

__all__ = ["NoOpResidualPostProcessor"]


class NoOpResidualPostProcessor(ResidualPostProcessor):
    """Leave the residual as it is (DL4J: ``NoOpResidualPostProcessor``)."""

    name: ClassVar[str] = "none"

    def process_(self, residual: NDArray[Any] | Tensor, threshold: float, iteration: int) -> float:
        """Do nothing."""
        return 0.0
