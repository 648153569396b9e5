"""An optimizer's step into the residual instead of the parameters, in as few passes over memory as it allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from strombus.compression import kernels

__all__ = ["Span", "Stepper"]

Array = NDArray[Any]

_WITHOUT_PARAMETERS = (
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.Adam,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.SGD,
)
"""Optimizers whose update, without weight decay, does not depend on the parameters."""

_SPECIAL = ("maximize", "differentiable", "capturable", "amsgrad")


class Span:
    """Where one parameter lies in the vector, and the arrays over it."""

    def __init__(self, parameter: nn.Parameter, start: int, vector: Array, residual: Tensor, bits: Array) -> None:
        self.parameter, self.start = parameter, start
        self.stop = start + parameter.numel()
        piece = residual[self.start : self.stop]
        self.view = piece.view(parameter.shape)
        self.residual: Array = piece.numpy()
        self.bits = bits[self.start : self.stop]
        self.values = vector[self.start : self.stop]


Selection = tuple[Any, Array]
"""A threshold in the residual's type, and its bits; see `kernels.limits_of`."""


class Stepper:
    """Adds an optimizer's step to the residual and selects quanta.

    Parameters
    ----------
    spans : sequence of Span
        In the order of the vector.
    codes : ndarray of uint32, shape (n,)
        Where codes go.
    """

    def __init__(self, spans: Sequence[Span], codes: Array) -> None:
        self._spans, self._codes = spans, codes

    def step(self, optimizer: Optimizer, limits: Sequence[Selection]) -> int:
        """Take one step; return the number of codes, or -1 when the residual became infinite or NaN.

        Parameters
        ----------
        limits : sequence
            For each span its threshold.
        """
        hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
        if not hooked and all(_fuses(type(optimizer), group) for group in optimizer.param_groups):
            return self._fused(optimizer, limits)
        if type(optimizer) in _WITHOUT_PARAMETERS and all(not g.get("weight_decay") for g in optimizer.param_groups):
            return self._on_residual(optimizer, limits)
        return self._difference(optimizer, limits)

    def select(self, limits: Sequence[Selection]) -> int:
        """Select quanta from the residual as it is."""
        return self._each(limits, lambda span: (kernels.select,))

    def _each(self, limits: Sequence[Selection], passes: Callable[[Span], tuple[Any, ...]]) -> int:
        """Run a kernel over each span; `passes` gives it and its first arguments."""
        count = 0
        for span, (quantum, limit) in zip(self._spans, limits, strict=True):
            kernel, *arguments = passes(span)
            count = int(kernel(*arguments, span.residual, span.bits, quantum, limit, self._codes, count, span.start))
            if count < 0:
                break
        return count

    def _fused(self, optimizer: Optimizer, limits: Sequence[Selection]) -> int:
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}

        def passes(span: Span) -> tuple[Any, ...]:
            group = groups.get(id(span.parameter))
            if group is None or span.parameter.grad is None:
                return (kernels.select,)
            gradient = span.parameter.grad.contiguous().view(-1).numpy()
            make = _sgd if type(optimizer) is torch.optim.SGD else _adam
            return make(group, optimizer.state, gradient, span)

        # A learning-rate schedule looks here for whether the optimizer came first.
        optimizer._opt_called = True  # type: ignore[attr-defined]
        return self._each(limits, passes)

    def _on_residual(self, optimizer: Optimizer, limits: Sequence[Selection]) -> int:
        held = [span.parameter.data for span in self._spans]
        try:
            for span in self._spans:
                span.parameter.data = span.view
            optimizer.step()
        finally:
            for span, data in zip(self._spans, held, strict=True):
                span.parameter.data = data
        return self.select(limits)

    def _difference(self, optimizer: Optimizer, limits: Sequence[Selection]) -> int:
        before = [span.values.copy() for span in self._spans]
        optimizer.step()
        waiting = iter(before)
        return self._each(limits, lambda span: (kernels.select_difference, span.values, next(waiting)))


def _fuses(kind: type[Optimizer], group: dict[str, Any]) -> bool:
    return kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW) and not any(
        group.get(option) for option in _SPECIAL
    )


def _sgd(group: dict[str, Any], states: dict[Any, dict[str, Any]], gradient: Array, span: Span) -> tuple[Any, ...]:
    kind, rate, decay, momentum = gradient.dtype, float(group["lr"]), group["weight_decay"], group["momentum"]
    if not momentum:
        return kernels.select_sgd, gradient, span.values, np.array([rate, decay], kind)
    keep, state = 1 - group["dampening"], states[span.parameter]
    if state.get("momentum_buffer") is None:
        state["momentum_buffer"] = torch.zeros_like(span.view)
        keep = 1.0  # torch starts with the gradient itself
    velocity = state["momentum_buffer"].view(-1).numpy()
    rates = np.array([rate, decay, momentum, keep], kind)
    return kernels.select_momentum, gradient, span.values, velocity, rates, bool(group["nesterov"])


def _adam(group: dict[str, Any], states: dict[Any, dict[str, Any]], gradient: Array, span: Span) -> tuple[Any, ...]:
    state = states[span.parameter]
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(span.view), torch.zeros_like(span.view)
    state["step"] += 1
    step, rate = float(state["step"]), float(group["lr"])
    beta1, beta2 = (float(beta) for beta in group["betas"])
    decoupled = group.get("decoupled_weight_decay", False)
    decay = group["weight_decay"]
    rates = np.array(
        [
            rate / (1 - beta1**step),
            1 - beta1,
            beta2,
            1 - beta2,
            1 / math.sqrt(1 - beta2**step),
            group["eps"],
            0.0 if decoupled else decay,
            rate * decay if decoupled else 0.0,
        ],
        gradient.dtype,
    )
    moments = (state[name].view(-1).numpy() for name in ("exp_avg", "exp_avg_sq"))
    return kernels.select_adam, gradient, span.values, *moments, rates
