"""Gradients brought within bounds before the optimizer takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Clipping"]


@dataclass(frozen=True)
class Clipping:
    """One of torch's two ways to clip gradients, or none.

    Parameters
    ----------
    norm : float or None
        Largest 2-norm of all gradients together (``torch.nn.utils.clip_grad_norm_``).
    value : float or None
        Largest size of each element (``torch.nn.utils.clip_grad_value_``).
    """

    norm: float | None = None
    value: float | None = None

    def clip_(self, parameters: Sequence[nn.Parameter]) -> Tensor | None:
        """Clip in place; return the norm from before where it was taken."""
        if self.value is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.value)
        return None if self.norm is None else torch.nn.utils.clip_grad_norm_(parameters, self.norm)
