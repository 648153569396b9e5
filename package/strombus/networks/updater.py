"""An optimizer and its schedule as plain arrays and numbers, and back."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from strombus.documents import shorten
from strombus.errors import ConfigurationError
from strombus.networks.flat import to_numpy
from strombus.types import UpdaterState

__all__ = ["check_updater", "read_updater", "renumber_updater", "write_updater_"]

Parameters = Sequence[nn.Parameter]


def read_updater(optimizer: Optimizer, parameters: Parameters, schedule: LRScheduler | None) -> UpdaterState:
    """Copy the optimizer's state out.

    Parameters
    ----------
    parameters : sequence of Parameter
        The trainable parameters in the order that numbers the tensors.

    Raises
    ------
    ConfigurationError
        For an optimizer that keeps something other than tensors and numbers for each parameter (LBFGS).
    """
    tensors: dict[str, NDArray[Any]] = {}
    for index, parameter in enumerate(parameters):
        for name, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"{index}.{name}"] = _array(value, name, optimizer)
    groups = tuple(
        {name: _plain(value) for name, value in group.items() if name != "params"} for group in optimizer.param_groups
    )
    return UpdaterState(tensors, groups, None if schedule is None else copy.deepcopy(schedule.state_dict()))


def _array(value: Any, name: str, optimizer: Optimizer) -> NDArray[Any]:
    if isinstance(value, Tensor) and value.layout == torch.strided:
        return to_numpy(value)
    if isinstance(value, bool | int | float):
        return np.asarray(value)
    kind = type(optimizer).__name__
    raise ConfigurationError(
        f"the state {name!r} of {kind} is a {type(value).__name__}, which cannot travel between workers; "
        "use save_updater=False, or an optimizer that keeps tensors and numbers, such as SGD or Adam"
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else copy.copy(value)


def renumber_updater(state: UpdaterState, before: Sequence[str], now: Sequence[str]) -> UpdaterState:
    """Return the state of parameters `before`, by name, as that of parameters `now`; the others' is left out."""
    if tuple(before) == tuple(now):
        return state
    numbers = {str(before.index(name)): number for number, name in enumerate(now) if name in before}
    split = ((key.partition("."), value) for key, value in state.tensors.items())
    tensors = {f"{numbers[old]}.{name}": value for (old, _, name), value in split if old in numbers}
    return replace(state, tensors=tensors)


def check_updater(
    state: UpdaterState, optimizer: Optimizer, parameters: Parameters, schedule: LRScheduler | None
) -> None:
    """Make sure that `write_updater_` can take `state`.

    Raises
    ------
    ConfigurationError
        When the state is that of another optimizer, schedule or architecture.
    """
    _check_shapes(_by_parameter(state.tensors, len(parameters)), optimizer, parameters)
    _check_groups(state.groups, optimizer, schedule is not None)
    if state.schedule is None:
        return
    if schedule is None:
        raise ConfigurationError(
            "the updater state comes with a learning-rate schedule and the network has none; "
            "give the network the schedule, or call network.reset_updater()"
        )
    mine = schedule.state_dict()
    unknown = sorted(set(state.schedule) - set(mine))
    if unknown:
        raise ConfigurationError(
            f"the updater state's schedule sets {', '.join(unknown)}, which {type(schedule).__name__} does not know: "
            "it is the state of another schedule; call network.reset_updater() to start afresh"
        )
    for name, value in state.schedule.items():
        if isinstance(mine[name], int | float | tuple):
            _check_like(mine[name], value, f"{name} of {type(schedule).__name__}")


def write_updater_(
    state: UpdaterState, optimizer: Optimizer, parameters: Parameters, schedule: LRScheduler | None
) -> None:
    """Bring the optimizer and its schedule to `state`, in place where its tensors exist already.

    Raises
    ------
    ConfigurationError
        See `check_updater`; nothing has changed then.
    """
    check_updater(state, optimizer, parameters, schedule)
    if schedule is not None and state.schedule is not None:
        fresh = schedule.state_dict()
        values = {name: _like(fresh[name], copy.deepcopy(value)) for name, value in state.schedule.items()}
        schedule.load_state_dict(values)
    for group, settings in zip(optimizer.param_groups, state.groups, strict=True):
        for name, value in settings.items():
            if name in group:
                group[name] = _like(group[name], value)
    found = _by_parameter(state.tensors, len(parameters))
    owners = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    with torch.no_grad():
        for index, parameter in enumerate(parameters):
            if index in found:
                _write_tensors(optimizer.state[parameter], found[index], parameter, owners.get(id(parameter), {}))
            else:
                optimizer.state.pop(parameter, None)


def _by_parameter(tensors: Mapping[str, NDArray[Any]], count: int) -> dict[int, dict[str, NDArray[Any]]]:
    found: dict[int, dict[str, NDArray[Any]]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        if not (name and index.isascii() and index.isdecimal() and len(index) < 10 and int(index) < count):
            raise ConfigurationError(
                f"updater state {shorten(key)} belongs to none of the {count} trainable parameters; "
                "after freezing or unfreezing some, call network.reset_updater()"
            )
        found.setdefault(int(index), {})[name] = np.asarray(value)
    return found


def _check_shapes(found: dict[int, dict[str, NDArray[Any]]], optimizer: Optimizer, parameters: Parameters) -> None:
    """Compare with the tensors that exist; a fresh optimizer's with the parameter, of which axes may be reduced."""
    for index, arrays in found.items():
        shape = tuple(parameters[index].shape)
        for name, array in arrays.items():
            known = optimizer.state.get(parameters[index], {}).get(name)
            if isinstance(known, Tensor):
                fits = array.shape == tuple(known.shape)
            else:
                fits = all(size == 1 or size in shape for size in array.shape)
            if not fits:
                raise ConfigurationError(
                    f"updater state '{index}.{name}' has shape {array.shape}, its parameter {shape}: "
                    "it is the state of another architecture; call network.reset_updater() to start afresh"
                )


def _check_groups(groups: Sequence[Mapping[str, Any]], optimizer: Optimizer, scheduled: bool) -> None:
    kind = type(optimizer).__name__
    if len(groups) != len(optimizer.param_groups):
        raise ConfigurationError(
            f"the updater state has {len(groups)} parameter group(s), "
            f"the network's {kind} {len(optimizer.param_groups)}"
        )
    for group, values in zip(optimizer.param_groups, groups, strict=True):
        unknown = sorted(set(values) - set(group) - ({"initial_lr"} if not scheduled else set()))
        if unknown:
            raise ConfigurationError(
                f"the updater state sets {', '.join(unknown)}, which {kind} does not know: "
                "it is the state of another optimizer; call network.reset_updater() to start afresh"
            )
        for name, value in values.items():
            _check_like(group.get(name), value, f"{name} of {kind}")


def _check_like(current: Any, value: Any, what: str) -> None:
    """Make sure that a value can take the place of the one that is there now."""
    if isinstance(current, tuple | list):
        if not isinstance(value, tuple | list) or len(value) != len(current):
            raise ConfigurationError(
                f"the updater state sets {what} to {shorten(value)}, wanted {len(current)} values as in {current!r}"
            )
        for mine, its in zip(current, value, strict=True):
            _check_like(mine, its, what)
    elif isinstance(current, int | float) and not isinstance(value, int | float):
        raise ConfigurationError(f"the updater state sets {what} to {shorten(value)}, wanted a number")


def _like(current: Any, value: Any) -> Any:
    """Give a value that may have been through JSON the type that is there now."""
    if isinstance(current, Tensor) and isinstance(value, int | float):
        return current.fill_(value)
    if isinstance(current, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(current, Counter) and isinstance(value, dict):
        return Counter(value)
    if isinstance(current, list) and isinstance(value, list) and len(current) == len(value):
        return [_like(mine, its) for mine, its in zip(current, value, strict=True)]
    if isinstance(current, dict) and isinstance(value, dict):
        return {name: _like(current.get(name), item) for name, item in value.items()}
    return value


def _write_tensors(
    existing: dict[str, Any], arrays: dict[str, NDArray[Any]], parameter: nn.Parameter, group: Mapping[str, Any]
) -> None:
    for name in set(existing) - set(arrays):
        del existing[name]
    for name, array in arrays.items():
        known = existing.get(name)
        source = torch.from_numpy(array if array.flags.writeable else array.copy())
        if isinstance(known, Tensor):
            known.copy_(source)
        elif isinstance(known, bool | int | float) or (array.ndim == 0 and array.dtype.kind in "iub"):
            existing[name] = array.item()
        else:
            # torch keeps step counts on the CPU unless the optimizer's kernel reads them on the device
            on_cpu = name == "step" and not (group.get("capturable") or group.get("fused"))
            existing[name] = source.clone() if on_cpu else source.to(parameter.device, copy=True)
