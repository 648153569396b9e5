"""Compile before anybody waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from strombus.compression.compressor import Compression, Compressor
from strombus.compression.thresholds import FixedThresholdAlgorithm

__all__ = ["warm_up"]

_LENGTH = 1200
"""Elements of the trial: more than one block of the kernels."""
_CLIPS = 6
"""Steps until the default post-processor has clipped."""

# One optimizer for each pass over the residual: fused kinds, one that steps on the residual, one that needs a copy.
_KINDS: Sequence[Callable[[list[nn.Parameter]], Optimizer]] = (
    lambda parameters: torch.optim.SGD(parameters, lr=1.0),
    lambda parameters: torch.optim.SGD(parameters, lr=1.0, momentum=0.9),
    lambda parameters: torch.optim.Adam(parameters, lr=1.0),
    lambda parameters: torch.optim.RMSprop(parameters, lr=1.0),
    lambda parameters: torch.optim.RMSprop(parameters, lr=1.0, weight_decay=0.1),
)


def warm_up(dtype: torch.dtype, tell: Callable[[], None] = lambda: None) -> None:
    """Make and read a few small updates, so that all of a `Compressor`'s passes for `dtype` are compiled.

    Numba compiles on the first call, holds the interpreter's lock for much of that time, and keeps the code on disk:
    with what torch imports for its first optimizer this takes seconds, a fraction of one where the code is there.

    Parameters
    ----------
    tell : callable
        Called several times, as a sign that work goes on.
    """
    for make in _KINDS:
        tell()
        vector = torch.zeros(_LENGTH, dtype=dtype)
        parameter = nn.Parameter(vector.view(_LENGTH))
        optimizer = make([parameter])
        compressor = Compressor(
            Compression(threshold_algorithm=FixedThresholdAlgorithm(threshold=1e-3)), [parameter], vector
        )
        for step in range(_CLIPS):
            parameter.grad = torch.zeros(_LENGTH, dtype=dtype)
            # Few elements are written as gaps, many as trits.
            parameter.grad[: _LENGTH if step else 3] = 1.0
            payload = compressor.step_(optimizer).payload
            compressor.apply_own_(1.0)
            for received in (bytes(payload), payload):  # transports give what can be written to, or what cannot
                compressor.apply_(memoryview(received), 1.0)
