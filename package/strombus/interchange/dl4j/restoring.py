"""The optimizer of an imported network, brought to where DL4J's updater stands, and DL4J's vector made of it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from strombus.errors import DataError
from strombus.interchange.dl4j.archive import UPDATER
from strombus.interchange.dl4j.ndarray import read_ndarray
from strombus.interchange.dl4j.optimizers import RULES, Dl4jOptimizer, fresh_state
from strombus.interchange.dl4j.records import Origin
from strombus.interchange.dl4j.updater_state import join_state, split_state
from strombus.interchange.dl4j.updaters import Training
from strombus.types import UpdaterState

__all__ = ["updater_vector", "write_updater_state_"]

Array = NDArray[Any]
Parameters = Mapping[str, nn.Parameter]


def write_updater_state_(
    optimizer: Optimizer,
    parameters: Parameters,
    origin: Origin,
    trainings: Sequence[Training],
    iteration: int,
    name: str = "the model",
) -> None:
    """Bring an imported network's optimizer to the state in its file; without one, to a fresh one of that iteration.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        What the optimizer is over.
    trainings : sequence of Training
        Of all `origin`'s records.
    name : str
        What errors call the file.

    Raises
    ------
    DataError
        When the file's state is damaged, or that of another network.
    """
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    saved = _saved(origin, trainings, name)
    for record, training, arrays in zip(origin.records, trainings, saved, strict=True):
        parameter, rule = parameters.get(record.name), RULES[training.updater.rule]
        if parameter is None or not rule.state:
            continue
        state = fresh_state(rule, parameter, groups[id(parameter)])
        for key, array in arrays.items():
            state[key].copy_(torch.from_numpy(np.array(array)).view(parameter.shape))
        if rule.counts or not isinstance(optimizer, Dl4jOptimizer):
            state["step"] = torch.tensor(float(iteration))
        optimizer.state[parameter] = state


def _saved(origin: Origin, trainings: Sequence[Training], name: str) -> Sequence[Mapping[str, Array]]:
    """Return each record's arrays, none where the file has no state."""
    if origin.updater_state is None:
        return [{}] * len(trainings)
    entry = f"{name}, {UPDATER}"
    vector = read_ndarray(origin.updater_state, entry).ravel()
    if vector.dtype.kind != "f":
        raise DataError(f"{entry} must be floating-point numbers, got {vector.dtype}")
    return split_state(vector, trainings, [record.size for record in origin.records], entry)


def updater_vector(
    updater: UpdaterState | None, names: Sequence[str], origin: Origin, trainings: Sequence[Training], dtype: Any
) -> Array:
    """Return the vector of ``updaterState.bin`` for an optimizer's state.

    Parameters
    ----------
    updater : UpdaterState or None
        What it has nothing of, such as parameters that were frozen, counts as not trained yet.
    names : sequence of str
        The parameters that the state numbers.
    """
    tensors = {} if updater is None else updater.tensors
    numbers = {name: number for number, name in enumerate(names)}

    def arrays() -> Iterator[dict[str, Array]]:
        for record, training in zip(origin.records, trainings, strict=True):
            settings, found = training.updater.settings, {}
            for name, fill in RULES[training.updater.rule].state.items():
                fresh = settings[fill].value_at(0, 0) if isinstance(fill, str) else fill
                kept = tensors.get(f"{numbers.get(record.name)}.{name}")
                found[name] = np.full(record.size, fresh, dtype) if kept is None else np.ravel(kept)
            yield found

    return join_state(list(arrays()), trainings, [record.size for record in origin.records], dtype)
