"""Pixels from 0 to the largest value of their type, to a range of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from strombus.errors import ConfigurationError
from strombus.normalizers.base import Array, Normalizer, Scaling
from strombus.normalizers.ranges import check_range

__all__ = ["ImagePreProcessingScaler"]


class ImagePreProcessingScaler(Normalizer):
    """Bring pixels of 0 to ``2**max_bits - 1`` to ``min_range`` to ``max_range`` (DL4J: ``ImagePreProcessingScaler``).

    It needs no fitting.

    Parameters
    ----------
    min_range, max_range : float
        What the least and the largest possible pixel become.
    max_bits : int
        Bits of a pixel; 1 for pixels that lie between 0 and 1.
    fit_labels : bool
        Whether labels are images too, as in segmentation.
    inputs, outputs
        See `Normalizer`.
    """

    name: ClassVar[str] = "image"

    def __init__(
        self,
        min_range: float = 0.0,
        max_range: float = 1.0,
        max_bits: int = 8,
        *,
        fit_labels: bool = False,
        inputs: Sequence[int] | None = None,
        outputs: Sequence[int] | None = None,
    ) -> None:
        super().__init__(fit_labels=fit_labels, inputs=inputs, outputs=outputs)
        self.min_range, self.max_range = check_range(min_range, max_range)
        if isinstance(max_bits, bool) or not isinstance(max_bits, int) or not 1 <= max_bits <= 64:
            raise ConfigurationError(f"max_bits must be an integer from 1 to 64, got {max_bits!r}")
        self.max_bits = max_bits

    @property
    def max_pixel(self) -> float:
        """The largest possible pixel."""
        return float(2**self.max_bits - 1)

    def scaling(self, values: Mapping[str, Array]) -> Scaling:
        """Return what brings 0 to `min_range` and the largest possible pixel to `max_range`."""
        spread = self.max_pixel / (self.max_range - self.min_range)
        return Scaling(np.array(0.0), np.array(spread), self.min_range)
