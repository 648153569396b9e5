"""Arguments of a network: each check returns the value to keep or says what was wanted."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from strombus.errors import ConfigurationError
from strombus.normalizers import Normalizer

__all__ = [
    "at_least_one",
    "autocast_dtype",
    "device_name",
    "function_or_none",
    "loss_weights",
    "make_module",
    "make_optimizer",
    "make_schedule",
    "non_negative",
    "normalizer",
    "one_at_most",
    "optimizer_factory",
    "penalty",
    "positive_or_none",
    "schedule_factory",
    "training_step",
]


def make_module(module: Any) -> nn.Module:
    """Copy a module to the CPU, or call a factory."""
    if isinstance(module, nn.Module):
        try:
            return copy.deepcopy(module).cpu()
        except (RuntimeError, TypeError) as error:
            raise ConfigurationError(
                f"the module cannot be copied ({error}); give a function that makes it instead"
            ) from error
    if not callable(module):
        hint = "; wrap the layers in nn.Sequential" if isinstance(module, list | tuple) else ""
        raise ConfigurationError(f"module must be an nn.Module or a function that makes one, got {_kind(module)}{hint}")
    _check_call(module, "module", "no arguments")
    made = module()
    if not isinstance(made, nn.Module):
        raise ConfigurationError(f"the module factory must return an nn.Module, got {_kind(made)}")
    return made.cpu()


def optimizer_factory(optimizer: Any) -> Any:
    """Accept None or a function of the parameters."""
    wanted = "optimizer must make an optimizer from the parameters, such as functools.partial(torch.optim.SGD, lr=0.1)"
    if isinstance(optimizer, Optimizer):
        name = type(optimizer).__name__
        raise ConfigurationError(f"{wanted}; got a {name} that is bound to its parameters already")
    if optimizer is None:
        return None
    if not callable(optimizer):
        raise ConfigurationError(f"{wanted}; got {_kind(optimizer)}")
    _check_call(optimizer, "optimizer", "the parameters", None)
    return optimizer


def make_optimizer(factory: Callable[[Any], Any], parameters: list[Any]) -> Optimizer:
    """Call the factory and make sure that an optimizer comes back."""
    if not parameters:
        raise ConfigurationError("the module has no trainable parameters; make one with optimizer=None to predict only")
    try:
        made = factory(parameters)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the optimizer cannot be made: {error}") from error
    if not isinstance(made, Optimizer):
        raise ConfigurationError(f"optimizer must return a torch.optim.Optimizer, got {_kind(made)}")
    return made


def function_or_none(name: str, value: Any) -> Any:
    """Accept None or what can be called with one argument."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name} must be a function, got {_kind(value)}")
    if value is not None:
        _check_call(value, name, "the parameters by name", {})
    return value


def training_step(value: Any) -> Any:
    """Accept None or what can be called with a module and a minibatch."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"training_step must be a function, got {_kind(value)}")
    if value is not None:
        _check_call(value, "training_step", "the module and a minibatch", None, None)
    return value


def schedule_factory(schedule: Any, optimizer: Any) -> Any:
    """Accept None or a function of the optimizer."""
    if schedule is None:
        return None
    if optimizer is None:
        raise ConfigurationError("a schedule needs an optimizer, got optimizer=None")
    if isinstance(schedule, LRScheduler) or not callable(schedule):
        raise ConfigurationError(
            "schedule must make a schedule from the optimizer, such as "
            f"functools.partial(torch.optim.lr_scheduler.StepLR, step_size=100); got {_kind(schedule)}"
        )
    _check_call(schedule, "schedule", "the optimizer", None)
    return schedule


def make_schedule(factory: Callable[[Optimizer], Any], optimizer: Optimizer) -> LRScheduler:
    """Call the factory and make sure that a schedule comes back that needs no metric."""
    try:
        made = factory(optimizer)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the schedule cannot be made: {error}") from error
    if isinstance(made, ReduceLROnPlateau):
        raise ConfigurationError(
            "ReduceLROnPlateau waits for a metric that a worker does not have at each minibatch; "
            "use a schedule that counts steps, such as StepLR or CosineAnnealingLR"
        )
    if not isinstance(made, LRScheduler):
        raise ConfigurationError(f"schedule must return a torch LRScheduler, got {_kind(made)}")
    return made


def normalizer(value: Any) -> Normalizer | None:
    """Accept None or a normalizer that was fitted."""
    if value is not None and not isinstance(value, Normalizer):
        raise ConfigurationError(
            f"normalizer must be one of strombus.data, such as NormalizerStandardize().fit(data), got {_kind(value)}"
        )
    if value is not None and not value.ready:
        raise ConfigurationError(f"the {_kind(value)} was not fitted: call its fit(data), or load one")
    return value


def non_negative(name: str, value: Any) -> float:
    """Accept a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigurationError(f"{name} must be a finite number of at least 0, got {value!r}")
    return float(value)


def penalty(name: str, value: Any, module: nn.Module) -> float | dict[str, float]:
    """Accept a number of at least 0, or one for each of some parameters of the module."""
    if not isinstance(value, Mapping):
        return non_negative(name, value)
    known = {parameter for parameter, _ in module.named_parameters()}
    unknown = [str(key) for key in value if key not in known]
    if unknown:
        raise ConfigurationError(
            f"{name} names {', '.join(unknown)}, which the module does not have; it has {', '.join(sorted(known))}"
        )
    return {key: non_negative(f"{name} of {key}", amount) for key, amount in value.items()}


def positive_or_none(name: str, value: Any) -> float | None:
    """Accept None or a finite number above 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ConfigurationError(f"{name} must be a finite number above 0, or None, got {value!r}")
    return float(value)


def one_at_most(**values: Any) -> None:
    """Refuse several options of which one would do."""
    given = [name for name, value in values.items() if value is not None]
    if len(given) > 1:
        raise ConfigurationError(f"give {' or '.join(given)}, not both")


def at_least_one(name: str, value: Any) -> int:
    """Accept an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be an integer of at least 1, got {value!r}")
    return value


def device_name(device: Any) -> str:
    """Accept "auto" or what ``torch.device`` knows; whether it exists is the worker's business."""
    if isinstance(device, str | torch.device):
        try:
            return "auto" if device == "auto" else str(torch.device(device))
        except RuntimeError:
            pass
    raise ConfigurationError(f"device must be 'auto' or a torch device such as 'cpu' or 'cuda:0', got {device!r}")


def autocast_dtype(autocast: Any) -> torch.dtype | None:
    """Accept None or bfloat16."""
    if autocast is None:
        return None
    dtype = getattr(torch, autocast, None) if isinstance(autocast, str) else autocast
    if dtype == torch.float16:
        raise ConfigurationError("autocast=torch.float16 would need its losses scaled; use torch.bfloat16")
    if dtype != torch.bfloat16:
        raise ConfigurationError(f"autocast must be None or torch.bfloat16, got {autocast!r}")
    return torch.bfloat16


def loss_weights(weights: Sequence[float] | None) -> tuple[float, ...] | None:
    """Accept None or finite numbers of at least 0."""
    if weights is None:
        return None
    return tuple(non_negative("each of loss_weights", weight) for weight in weights)


def _check_call(function: Callable[..., Any], name: str, takes: str, *arguments: Any) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"{name} must be a function of {takes}, but {function!r} cannot be called so: {error}"
        ) from error


def _kind(value: Any) -> str:
    return type(value).__name__
