"""What `stepping` does in compiled passes on the CPU, as torch operations: for parameters on another device."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from strombus.compression.stepping import reads_parameters, standing_in

__all__ = ["TorchStepper"]

Array = NDArray[Any]


class TorchStepper:
    """Adds an optimizer's step to the residual and selects quanta, where the parameters are.

    Only codes cross to the host and back. Parameters, methods and results are those of `stepping.Stepper`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], vector: Tensor, residual: Tensor, codes: Array) -> None:
        self._parameters, self._vector, self._residual, self._codes = parameters, vector, residual, codes
        self._spans = list(pairwise(np.cumsum([0, *(parameter.numel() for parameter in parameters)]).tolist()))
        spans = zip(parameters, self._spans, strict=True)
        self._views = [residual[start:stop].view(parameter.shape) for parameter, (start, stop) in spans]

    def step(self, optimizer: Optimizer, thresholds: Sequence[float]) -> int:
        """Take one step; return the number of codes, or -1 when the residual became infinite or NaN."""
        if reads_parameters(optimizer):
            before = self._vector.clone()
            optimizer.step()
            self._residual += self._vector - before
            self._vector.copy_(before)
        else:
            with standing_in(self._parameters, self._views):
                optimizer.step()
        return self.select(thresholds)

    def select(self, thresholds: Sequence[float]) -> int:
        """Select quanta from the residual as it is; see `step`."""
        if not bool(torch.isfinite(self._residual).all()):
            return -1
        spans, count = self._spans if len(thresholds) > 1 else [(0, len(self._residual))], 0
        for (start, stop), threshold in zip(spans, thresholds, strict=True):
            piece = self._residual[start:stop]
            # As the codes' receivers have it: rounded to the parameters' type.
            tau = torch.tensor(threshold, dtype=piece.dtype, device=piece.device)
            indices = (piece.abs() >= tau).nonzero().view(-1)
            values = piece[indices]
            piece[indices] = values - torch.copysign(tau, values)
            found = (2 * (indices + start) + (values < 0)).cpu().numpy()
            self._codes[count : count + len(found)] = found
            count += len(found)
        return count

    def add_codes(self, codes: Array, quantum: Any) -> None:
        """Add plus or minus `quantum` to the parameters that the codes name."""
        found = torch.from_numpy(codes.astype(np.int64)).to(self._vector.device)
        tau = torch.tensor(float(quantum), dtype=self._vector.dtype, device=self._vector.device)
        # No index comes twice, so that the order of the additions does not matter.
        self._vector[found >> 1] += torch.where((found & 1).bool(), -tau, tau)

    def add_values(self, values: Array, scale: float) -> None:
        """Add `values`, of any floating type, times `scale` to the parameters."""
        found = torch.from_numpy(np.array(values)).to(self._vector.device, self._vector.dtype)
        self._vector += found * scale

    def own_form(self, piece: Tensor) -> Tensor:
        """Return the same memory in the form that a residual post-processor takes."""
        return piece
