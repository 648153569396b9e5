"""A network that came from Deeplearning4j: its updaters and schedules, and its way back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from strombus.errors import ConfigurationError
from strombus.files import write_whole
from strombus.interchange.dl4j.archive import NORMALIZER
from strombus.interchange.dl4j.models import coefficients_of
from strombus.interchange.dl4j.ndarray import read_ndarray
from strombus.interchange.dl4j.normalizers import write_normalizer
from strombus.interchange.dl4j.records import Origin
from strombus.interchange.dl4j.restoring import updater_vector, write_updater_state_
from strombus.interchange.dl4j.saving import pack_model, with_counts
from strombus.interchange.dl4j.training import Dl4jSchedule, OptimizerFactory
from strombus.interchange.dl4j.updaters import Training, read_trainings
from strombus.networks.flat import module_tensors, trainable
from strombus.networks.network import Network
from strombus.networks.updater import read_updater

__all__ = ["restore_updater", "save_dl4j"]


def restore_updater(network: Network, origin: Origin, trainings: Sequence[Training], name: str) -> None:
    """Bring the optimizer and schedule of an imported network to where DL4J's updaters stand.

    Parameters
    ----------
    name : str
        What errors call the file.

    Raises
    ------
    DataError
        When ``updaterState.bin`` is damaged, or that of another network.
    """
    parameters = trainable(network.module)
    optimizer, schedule = network.make_optimizer(list(parameters.values()))
    write_updater_state_(optimizer, parameters, origin, trainings, network.iteration, name)
    if isinstance(schedule, Dl4jSchedule):
        schedule.move_to(network.iteration, network.epoch)
    network.restore_updater(read_updater(optimizer, list(parameters.values()), schedule))


def save_dl4j(network: Network, path: str | os.PathLike[str], *, updater: bool = True) -> None:
    """Write a network that came from Deeplearning4j as a zip that its ``ModelSerializer`` restores.

    The configuration is the one that was read, with the counts of iterations and epochs as they are now; so are the
    coefficients, the network's normalizer and, where they are wanted, the updaters' states. What else the zip had
    goes along.

    Parameters
    ----------
    network : Network
        One of `strombus.load_dl4j`.
    path : path or URI
    updater : bool
        Whether the updaters' states are in it; without, DL4J starts them afresh.

    Raises
    ------
    ConfigurationError
        For a network that did not come from DL4J, was changed since, or has an optimizer of another kind.
    """
    origin = network.dl4j
    if origin is None:
        raise ConfigurationError(
            "save_dl4j writes networks that load_dl4j has read, and this one has no configuration of DL4J's; "
            "network.save(path) writes any network"
        )
    _check_unchanged(network, origin)
    coefficients = coefficients_of(network.module, origin.records)
    state = _updater_vector(network, origin, str(path), coefficients.dtype) if updater else None
    text = with_counts(origin.configuration, network.iteration, network.epoch)
    entries = {name: data for name, data in origin.entries.items() if name != NORMALIZER}
    if network.normalizer is not None:
        entries[NORMALIZER] = write_normalizer(network.normalizer, coefficients.dtype)
    write_whole(path, pack_model(text, coefficients[None], None if state is None else state[None], entries))


def _check_unchanged(network: Network, origin: Origin) -> None:
    found = {name: tensor.numel() for name, tensor in module_tensors(network.module).items()}
    differing = sorted({name for name, _ in found.items() ^ {(one.name, one.size) for one in origin.records}})
    if differing:
        raise ConfigurationError(
            f"DL4J's configuration no longer describes the module: {', '.join(differing)} differ from what was read; "
            "network.save(path) writes any network"
        )


def _updater_vector(network: Network, origin: Origin, name: str, dtype: Any) -> NDArray[Any] | None:
    """Return the updaters' states; those in the file that was read where no optimizer was made."""
    if network.optimizer is None:
        return None if origin.updater_state is None else read_ndarray(origin.updater_state).ravel()
    if not isinstance(network.optimizer, OptimizerFactory):
        raise ConfigurationError(
            "the network's optimizer is not the one that load_dl4j gave it, and its state means nothing to DL4J; "
            "give save_dl4j updater=False"
        )
    trainings = read_trainings(origin.records, name)
    return updater_vector(network.updater, tuple(trainable(network.module)), origin, trainings, dtype)
