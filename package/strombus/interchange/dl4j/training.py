"""Optimizers and learning-rate schedules of torch that train as DL4J does: what a network's workers make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from strombus.errors import ConfigurationError
from strombus.interchange.dl4j.optimizers import RULES, Dl4jOptimizer, Rule, fresh_state
from strombus.interchange.dl4j.schedules import Schedule
from strombus.interchange.dl4j.updaters import Training

__all__ = ["Dl4jSchedule", "GradientNormalization", "OptimizerFactory", "ScheduleFactory"]

_TORCH: Mapping[str, Callable[..., Optimizer]] = {
    "AdaDelta": torch.optim.Adadelta,
    "AdaGrad": torch.optim.Adagrad,
    "NoOp": torch.optim.SGD,
    "RmsProp": torch.optim.RMSprop,
    "Sgd": torch.optim.SGD,
}
"""Optimizers of torch that compute the same from the same state; those of the Adam family add epsilon elsewhere."""


@dataclass(frozen=True)
class OptimizerFactory:
    """Makes the optimizer of a network that came from DL4J, one parameter group for each of DL4J's parameters.

    Parameters
    ----------
    trainings : tuple of Training
    names : tuple of str
        The module's parameters that DL4J's became.
    """

    trainings: tuple[Training, ...]
    names: tuple[str, ...]

    by_name = True

    def __call__(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> Optimizer:
        """Return the optimizer over named parameters: torch's own where it does exactly the same.

        Raises
        ------
        ConfigurationError
            For parameters that DL4J's network does not have.
        """
        found, kind = dict(parameters), self.kind
        groups = [
            {"params": [found.pop(name)] if name in found else [], **_settings(training, kind)}
            for training, name in zip(self.trainings, self.names, strict=True)
        ]
        if found:
            raise ConfigurationError(
                f"the network's updaters are those that DL4J wrote, for a network without {', '.join(found)}; "
                "give a changed module a network and an optimizer of its own"
            )
        optimizer = kind(groups)
        for training, group in zip(self.trainings, optimizer.param_groups, strict=True):
            _begin(optimizer, RULES[training.updater.rule], group)
        return optimizer

    @property
    def kind(self) -> Callable[..., Optimizer]:
        """The optimizer's class."""
        kinds = {_TORCH.get(training.updater.rule) for training in self.trainings}
        only = kinds.pop() if len(kinds) == 1 else None
        decays = any(training.weight_decay for training in self.trainings)
        return Dl4jOptimizer if only is None or decays else only

    def schedule(self) -> ScheduleFactory | None:
        """Return what makes the schedule of all settings that change; None where none does."""
        changing = tuple(training.updater.schedules() for training in self.trainings)
        return ScheduleFactory(changing) if any(changing) else None


def _settings(training: Training, kind: Callable[..., Optimizer]) -> dict[str, Any]:
    """Return a group's settings before the first step."""
    values: dict[str, Any] = {name: one.value_at(0, 0) for name, one in training.updater.settings.items()}
    values |= {"name": training.name}
    if kind is Dl4jOptimizer:
        values |= {"rule": training.updater.rule}
        values |= {"weight_decay": training.weight_decay, "decay_times_lr": training.decay_times_lr}
    return values


def _begin(optimizer: Optimizer, rule: Rule, group: Mapping[str, Any]) -> None:
    """Start from where DL4J does, if that is not zero: torch's optimizers, and what workers make up, would."""
    for parameter in group["params"] if any(rule.state.values()) else ():
        count = {} if isinstance(optimizer, Dl4jOptimizer) else {"step": torch.tensor(0.0)}
        optimizer.state[parameter] = {**count, **fresh_state(rule, parameter, group)}


@dataclass(frozen=True)
class ScheduleFactory:
    """Makes a `Dl4jSchedule`; `changing` has, for each parameter group, the settings that change."""

    changing: tuple[Mapping[str, Schedule], ...]

    def __call__(self, optimizer: Optimizer) -> Dl4jSchedule:
        """Return the schedule over an optimizer of `OptimizerFactory`."""
        return Dl4jSchedule(optimizer, self.changing)


class Dl4jSchedule(LRScheduler):
    """DL4J's schedules of learning rates and momentum, by iteration or by epoch.

    Parameters
    ----------
    optimizer : Optimizer
    changing : sequence of mapping
        For each parameter group the settings that change.

    Attributes
    ----------
    last_epoch : int
        Iterations so far: torch's name for what it steps.
    epoch : int
        Epochs so far; `begin_epoch` sets it.
    """

    def __init__(self, optimizer: Optimizer, changing: Sequence[Mapping[str, Schedule]]) -> None:
        self._changing = changing
        self.epoch = 0
        super().__init__(optimizer)

    def begin_epoch(self, epoch: int) -> None:
        """Take note that this many epochs were trained before the steps that follow."""
        self.epoch = epoch
        self._set()

    def move_to(self, iteration: int, epoch: int) -> None:
        """Go on after as many iterations and epochs."""
        self.last_epoch = self._step_count = iteration
        self._step_count += 1
        self.begin_epoch(epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return each group's learning rate for the next step; sets the other settings that change."""
        self._set()
        return [group["lr"] for group in self.optimizer.param_groups]

    def _set(self) -> None:
        for group, changing in zip(self.optimizer.param_groups, self._changing, strict=True):
            for name, schedule in changing.items():
                group[name] = schedule.value_at(self.last_epoch, self.epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what changes."""
        return {"last_epoch": self.last_epoch, "epoch": self.epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.__dict__.update(state_dict)
        self._set()


@dataclass(frozen=True)
class GradientNormalization:
    """Normalises or clips the gradients of layers, or of their parameters, as DL4J does before anything else.

    Parameters
    ----------
    trainings, names
        See `OptimizerFactory`.
    """

    trainings: tuple[Training, ...]
    names: tuple[str, ...]

    def __call__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Change the gradients of parameters, by name, in place."""
        together: dict[tuple[Any, ...], list[Tensor]] = {}
        for training, name in zip(self.trainings, self.names, strict=True):
            kind, gradient = training.normalization, parameters[name].grad if name in parameters else None
            if gradient is not None and kind != "None":
                variable = None if kind.endswith("PerLayer") else training.variable
                together.setdefault((kind, training.threshold, training.layer, variable), []).append(gradient)
        for (kind, threshold, *_), gradients in together.items():
            _normalize(kind, threshold, gradients)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return any(training.normalization != "None" for training in self.trainings)


def _normalize(kind: str, threshold: float, gradients: list[Tensor]) -> None:
    if kind == "ClipElementWiseAbsoluteValue":
        for gradient in gradients:
            gradient.clamp_(-threshold, threshold)
        return
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
    wanted, had = (1.0, norm or 1e-5) if kind.startswith("Renormalize") else (threshold, max(norm, threshold))
    for gradient in gradients:
        gradient.mul_(wanted / had if had else 0.0)
