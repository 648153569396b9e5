"""An optimizer's step into the residual instead of the parameters, in as few passes over memory as it allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from strombus.compression import kernels

__all__ = ["Stepper", "reads_parameters", "standing_in"]

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


class _Span:
    """Where one parameter lies in the vector, and the arrays over it."""

    def __init__(self, parameter: nn.Parameter, start: int, vector: Array, residual: Tensor) -> None:
        self.parameter, self.start = parameter, start
        self.stop = start + parameter.numel()
        piece = residual[self.start : self.stop]
        self.view = piece.view(parameter.shape)
        self.residual: Array = piece.numpy()
        self.values = vector[self.start : self.stop]


class Stepper:
    """Adds an optimizer's step to the residual and selects quanta, in compiled passes on the CPU.

    Parameters
    ----------
    parameters : sequence of Parameter
        Views of `vector`, in its order.
    vector, residual : Tensor, shape (n,)
    codes : ndarray of uint32, shape (n,)
        Where codes go.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], vector: Tensor, residual: Tensor, codes: Array) -> None:
        self._values: Array = vector.numpy()
        starts = np.cumsum([0, *(parameter.numel() for parameter in parameters)]).tolist()
        self._spans = [
            _Span(parameter, start, self._values, residual)
            for parameter, start in zip(parameters, starts, strict=False)
        ]
        self._codes = codes

    def step(self, optimizer: Optimizer, thresholds: Sequence[float]) -> int:
        """Take one step; return the number of codes, or -1 when the residual became infinite or NaN.

        Parameters
        ----------
        thresholds : sequence of float
            One, or one for each parameter.
        """
        quanta = self._quanta(thresholds)
        if not _hooked(optimizer) and all(_fuses(type(optimizer), group) for group in optimizer.param_groups):
            return self._fused(optimizer, quanta)
        if not reads_parameters(optimizer):
            return self._on_residual(optimizer, quanta)
        return self._difference(optimizer, quanta)

    def select(self, thresholds: Sequence[float]) -> int:
        """Select quanta from the residual as it is; see `step`."""
        return self._select(self._quanta(thresholds))

    def add_codes(self, codes: Array, quantum: Any) -> None:
        """Add plus or minus `quantum` to the parameters that the codes name."""
        kernels.add_codes(codes, len(codes), quantum, self._values, 0)

    def add_values(self, values: Array, scale: float) -> None:
        """Add `values`, of any floating type, times `scale` to the parameters."""
        self._values += values.astype(self._values.dtype) * self._values.dtype.type(scale)

    def own_form(self, piece: Tensor) -> Array:
        """Return the same memory in the form that a residual post-processor takes."""
        return piece.numpy()

    def _quanta(self, thresholds: Sequence[float]) -> list[Any]:
        """Return a threshold for each span, in the residual's type."""
        quanta = [self._values.dtype.type(one) for one in thresholds]
        return quanta * len(self._spans) if len(quanta) == 1 else quanta

    def _select(self, quanta: Sequence[Any]) -> int:
        return self._each(quanta, lambda span: (kernels.select,))

    def _each(self, quanta: Sequence[Any], passes: Callable[[_Span], tuple[Any, ...]]) -> int:
        """Run a kernel over each span; `passes` gives it and its first arguments."""
        count = 0
        for span, quantum in zip(self._spans, quanta, strict=True):
            kernel, *arguments = passes(span)
            count = int(kernel(*arguments, span.residual, quantum, self._codes, count, span.start))
            if count < 0:
                break
        return count

    def _fused(self, optimizer: Optimizer, quanta: Sequence[Any]) -> int:
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}

        def passes(span: _Span) -> tuple[Any, ...]:
            group = groups.get(id(span.parameter))
            if group is None or span.parameter.grad is None:
                return (kernels.select,)
            gradient = span.parameter.grad.contiguous().view(-1).numpy()
            make = _sgd if type(optimizer) is torch.optim.SGD else _adam
            return make(group, optimizer.state, gradient, span)

        # A learning-rate schedule looks here for whether the optimizer came first.
        optimizer._opt_called = True  # type: ignore[attr-defined]
        return self._each(quanta, passes)

    def _on_residual(self, optimizer: Optimizer, quanta: Sequence[Any]) -> int:
        with standing_in([span.parameter for span in self._spans], [span.view for span in self._spans]):
            optimizer.step()
        return self._select(quanta)

    def _difference(self, optimizer: Optimizer, quanta: Sequence[Any]) -> int:
        before = [span.values.copy() for span in self._spans]
        optimizer.step()
        waiting = iter(before)
        return self._each(quanta, lambda span: (kernels.select_difference, span.values, next(waiting)))


@contextmanager
def standing_in(parameters: Sequence[nn.Parameter], tensors: Sequence[Tensor]) -> Iterator[None]:
    """Have the parameters hold `tensors` meanwhile, so that an optimizer adds its step to these."""
    held = [parameter.data for parameter in parameters]
    try:
        for parameter, tensor in zip(parameters, tensors, strict=True):
            parameter.data = tensor
        yield
    finally:
        for parameter, data in zip(parameters, held, strict=True):
            parameter.data = data


def reads_parameters(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer's update may depend on the parameters themselves; of most kinds nothing is known.

    One that has an attribute ``reads_parameters`` says so itself.
    """
    decays = any(group.get("weight_decay") for group in optimizer.param_groups)
    unknown = bool(getattr(optimizer, "reads_parameters", type(optimizer) not in _WITHOUT_PARAMETERS))
    return decays or _hooked(optimizer) or unknown


def _hooked(optimizer: Optimizer) -> bool:
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def _fuses(kind: type[Optimizer], group: dict[str, Any]) -> bool:
    return kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW) and not any(
        group.get(option) for option in _SPECIAL
    )


def _sgd(group: dict[str, Any], states: dict[Any, dict[str, Any]], gradient: Array, span: _Span) -> tuple[Any, ...]:
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


def _adam(group: dict[str, Any], states: dict[Any, dict[str, Any]], gradient: Array, span: _Span) -> tuple[Any, ...]:
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
