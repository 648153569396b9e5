"""DL4J's updaters as one ``torch.optim.Optimizer``, each parameter group with a rule of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["RULES", "Dl4jOptimizer", "Rule", "fresh_state"]

Group = Mapping[str, Any]
State = Mapping[str, Tensor]


class Rule(NamedTuple):
    """What an updater keeps for each parameter, in the order in which DL4J writes it, and what it does.

    `state` gives each array's name and what it is filled with at first: a number, or the setting of that name.
    `counts` says whether the step depends on how many were taken before. `step` returns what is subtracted.
    """

    state: Mapping[str, float | str]
    step: Callable[[Tensor, State, Group, int], Tensor]
    counts: bool = False


def _sgd(gradient: Tensor, state: State, group: Group, t: int) -> Tensor:
    return gradient.mul(group["lr"])


def _nesterovs(gradient: Tensor, state: State, group: Group, t: int) -> Tensor:
    velocity, momentum = state["velocity"], group["momentum"]
    before = velocity.mul(momentum)
    torch.sub(before, gradient, alpha=group["lr"], out=velocity)
    return before.sub_(velocity, alpha=1 + momentum)


def _ada_grad(gradient: Tensor, state: State, group: Group, t: int) -> Tensor:
    squares = state["sum"].addcmul_(gradient, gradient)
    return gradient.mul(group["lr"]).div_(squares.sqrt().add_(group["eps"]))


def _rms_prop(gradient: Tensor, state: State, group: Group, t: int) -> Tensor:
    squares = state["square_avg"].mul_(group["alpha"]).addcmul_(gradient, gradient, value=1 - group["alpha"])
    return gradient.mul(group["lr"]).div_(squares.sqrt().add_(group["eps"]))


def _ada_delta(gradient: Tensor, state: State, group: Group, t: int) -> Tensor:
    rho, eps, moved = group["rho"], group["eps"], state["acc_delta"]
    squares = state["square_avg"].mul_(rho).addcmul_(gradient, gradient, value=1 - rho)
    step = moved.add(eps).sqrt_().div_(squares.add(eps).sqrt_()).mul_(gradient)
    moved.mul_(rho).addcmul_(step, step, value=1 - rho)
    return step


def _moments(gradient: Tensor, state: State, group: Group) -> tuple[Tensor, Tensor]:
    first = state["exp_avg"].mul_(group["beta1"]).add_(gradient, alpha=1 - group["beta1"])
    second = state["exp_avg_sq"].mul_(group["beta2"]).addcmul_(gradient, gradient, value=1 - group["beta2"])
    return first, second


def _adam_rate(group: Group, t: int) -> float:
    # epsilon is added to a root that is not corrected, unlike in torch: early steps are smaller
    return float(group["lr"] * math.sqrt(1 - group["beta2"] ** t) / (1 - group["beta1"] ** t))


def _adam(gradient: Tensor, state: State, group: Group, t: int) -> Tensor:
    first, second = _moments(gradient, state, group)
    return first.mul(_adam_rate(group, t)).div_(second.sqrt().add_(group["eps"]))


def _ams_grad(gradient: Tensor, state: State, group: Group, t: int) -> Tensor:
    first, second = _moments(gradient, state, group)
    largest = torch.maximum(state["max_exp_avg_sq"], second, out=state["max_exp_avg_sq"])
    return first.mul(_adam_rate(group, t)).div_(largest.sqrt().add_(group["eps"]))


def _ada_max(gradient: Tensor, state: State, group: Group, t: int) -> Tensor:
    first = state["exp_avg"].mul_(group["beta1"]).add_(gradient, alpha=1 - group["beta1"])
    largest = state["exp_inf"].mul_(group["beta2"])
    torch.maximum(largest, gradient.abs(), out=largest).add_(1e-32)
    return first.mul(group["lr"] / (1 - group["beta1"] ** t)).div_(largest)


def _nadam(gradient: Tensor, state: State, group: Group, t: int) -> Tensor:
    first, second = _moments(gradient, state, group)
    ahead = first.mul(group["beta1"]).add_(gradient, alpha=1 - group["beta1"])
    return ahead.mul_(group["lr"] / (1 - group["beta1"] ** t)).div_(second.sqrt().add_(group["eps"]))


_MOMENTS: Mapping[str, float | str] = {"exp_avg": 0.0, "exp_avg_sq": 0.0}

RULES: Mapping[str, Rule] = {
    "NoOp": Rule({}, _sgd),  # the gradient itself: its rate is 1
    "Sgd": Rule({}, _sgd),
    "Nesterovs": Rule({"velocity": 0.0}, _nesterovs),
    "AdaGrad": Rule({"sum": 1e-6}, _ada_grad),
    "RmsProp": Rule({"square_avg": "eps"}, _rms_prop),
    "AdaDelta": Rule({"square_avg": 0.0, "acc_delta": 0.0}, _ada_delta),
    "Adam": Rule(_MOMENTS, _adam, counts=True),
    "AMSGrad": Rule({**_MOMENTS, "max_exp_avg_sq": 0.0}, _ams_grad, counts=True),
    "AdaMax": Rule({"exp_avg": 0.0, "exp_inf": 0.0}, _ada_max, counts=True),
    "Nadam": Rule(_MOMENTS, _nadam, counts=True),
}
"""Updaters by DL4J's names; states have the names of torch's where they mean the same."""


class Dl4jOptimizer(Optimizer):
    """Takes steps by DL4J's rules, and decays weights with them.

    Parameters
    ----------
    groups : iterable of mapping
        With ``params`` and: ``rule``, a name of `RULES`; what the rule takes, ``lr`` in any case (1 for rules
        without one); ``weight_decay``, the coefficient of what is added to the step, times the rate if
        ``decay_times_lr``. The rules are not among the settings afterwards: no state from a file changes them.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]]) -> None:
        given = [dict(group) for group in groups]
        self.rules = tuple(group.pop("rule") for group in given)
        super().__init__(given, {})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rules": self.rules}

    @property
    def reads_parameters(self) -> bool:
        """Whether a step depends on the parameters themselves, not on their gradients alone."""
        return any(group["weight_decay"] for group in self.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, rule in zip(self.param_groups, self.rules, strict=True):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group, RULES[rule])
        return loss

    def _step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], rule: Rule) -> None:
        state = self.state[parameter]
        if not state:
            state.update(fresh_state(rule, parameter, group))
        if rule.counts:
            state["step"] += 1
        step = rule.step(gradient, state, group, int(state["step"]) if rule.counts else 0)
        if group["weight_decay"]:
            scale = group["lr"] if group["decay_times_lr"] else 1.0
            step.add_(parameter, alpha=group["weight_decay"] * scale)
        parameter.sub_(step)


def fresh_state(rule: Rule, parameter: Tensor, group: Group) -> dict[str, Tensor]:
    """Return what a rule's state is before the first step."""
    fills = {name: group[fill] if isinstance(fill, str) else fill for name, fill in rule.state.items()}
    state = {name: torch.full_like(parameter, fill, requires_grad=False) for name, fill in fills.items()}
    return {"step": torch.tensor(0.0), **state} if rule.counts else state
