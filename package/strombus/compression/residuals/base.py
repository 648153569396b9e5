"""The interface of a residual post-processor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from torch import Tensor

__all__ = ["ResidualPostProcessor"]


class ResidualPostProcessor(BaseModel, ABC):
    """What happens to a residual after an update was taken out of it (DL4J: ``ResidualPostProcessor``)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )

    name: ClassVar[str]

    @abstractmethod
    def process_(self, residual: NDArray[Any] | Tensor, threshold: float, iteration: int) -> float:
        """Change the residual in place, and return the sum of the absolute values that were removed.

        Parameters
        ----------
        residual : ndarray or Tensor, shape (n,)
            A tensor where the parameters are not on the CPU.
        threshold : float
            The step's.
        iteration : int
            Steps before this one.
        """
