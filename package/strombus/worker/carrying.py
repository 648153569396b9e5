"""What one fit of shared training leaves for the next, whoever trains it and whichever parameters it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from strombus.compression import CompressorState, ThresholdState
from strombus.errors import ConfigurationError
from strombus.networks.flat import FlatParameters

__all__ = ["Carried"]


@dataclass(frozen=True)
class Carried:
    """Residual and thresholds, by the parameters' names.

    Parameters
    ----------
    residual : mapping of str to ndarray, shape (n,)
        What is still to be added to each parameter, by all members together.
    thresholds : mapping of tuple of str to ThresholdState
        By the parameters that each is for.
    iteration : int
        Steps of the compressor.
    """

    residual: Mapping[str, NDArray[Any]]
    thresholds: Mapping[tuple[str, ...], ThresholdState]
    iteration: int

    @classmethod
    def of(cls, flat: FlatParameters, state: CompressorState) -> Self:
        """Return a compressor's state over `flat` as what is carried on."""
        spans = zip(flat.names, flat.offsets, flat.shapes, strict=True)
        residual = {name: state.residual[offset : offset + shape.numel()] for name, offset, shape in spans}
        return cls(residual, dict(zip(_owners(flat, state), state.thresholds, strict=True)), state.iteration)

    def check(self, flat: FlatParameters) -> None:
        """Raise ConfigurationError where a parameter of `flat` is not the one that was trained under its name."""
        for name, shape in zip(flat.names, flat.shapes, strict=True):
            if name in self.residual and len(self.residual[name]) != shape.numel():
                raise ConfigurationError(
                    f"the last fit left updates of {len(self.residual[name])} elements for parameter {name}, which has "
                    f"{shape.numel()} now: make a new Trainer, which starts without them"
                )

    def take_up(self, flat: FlatParameters, fresh: CompressorState, share: float) -> CompressorState:
        """Return what a compressor over `flat` goes on from.

        Parameters that were frozen in the last fit, and thresholds for others than those trained now, start afresh.

        Parameters
        ----------
        fresh : CompressorState
            The compressor's own.
        share : float
            The member's part in what is still to be added.
        """
        residual = np.zeros(len(flat.vector), fresh.residual.dtype)
        for name, offset in zip(flat.names, flat.offsets, strict=True):
            if (kept := self.residual.get(name)) is not None:
                residual[offset : offset + len(kept)] = kept * share
        thresholds = tuple(
            replace(self.thresholds.get(owners, own), elements=own.elements)
            for owners, own in zip(_owners(flat, fresh), fresh.thresholds, strict=True)
        )
        return CompressorState(residual, thresholds, self.iteration)

    def after(self, earlier: Carried | None) -> Carried:
        """Return this with what `earlier` holds for parameters that are frozen by now."""
        return self if earlier is None else replace(self, residual={**earlier.residual, **self.residual})


def _owners(flat: FlatParameters, state: CompressorState) -> Sequence[tuple[str, ...]]:
    """Return, for each threshold, the parameters that it is for."""
    return [flat.names] if len(state.thresholds) == 1 else [(name,) for name in flat.names]
