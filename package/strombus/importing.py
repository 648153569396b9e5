"""Networks of Deeplearning4j as networks of Strombus."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from strombus.errors import ConfigurationError, DataError, MissingDataError
from strombus.files import open_storage, read_start
from strombus.interchange.dl4j.archive import NORMALIZER
from strombus.interchange.dl4j.models import Model, make_model, read_model, write_coefficients_
from strombus.interchange.dl4j.normalizers import MAGIC, read_normalizer
from strombus.interchange.dl4j.records import read_penalties
from strombus.interchange.dl4j.training import GradientNormalization, OptimizerFactory
from strombus.interchange.dl4j.updaters import Training, read_trainings
from strombus.networks import ComputationGraph, MultiLayerNetwork, Network
from strombus.networks.dl4j import restore_updater
from strombus.networks.saving import read_origin

__all__ = ["load_dl4j"]

_OPTIONS = {"device", "autocast", "accumulate", "normalizer", "clip_grad_norm", "clip_grad_value"}


def load_dl4j(
    path: str | os.PathLike[str],
    *,
    training: bool = True,
    optimizer: Callable[[Any], Any] | None = None,
    schedule: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Network:
    """Read a network that Deeplearning4j's ``ModelSerializer`` wrote, or that one as ``network.save`` wrote it later.

    Parameters
    ----------
    path : path or URI
        The zip, or the saved network.
    training : bool
        Whether the network is to be trained on. False reads it for predictions and scores alone: options that
        matter in training alone then need not be known. A file that ``network.save`` wrote remembers it.
    optimizer, schedule : callable, optional
        See `strombus.networks.Network`; by default DL4J's updaters and schedules, those of each layer, in the state in
        which they were saved.
    **options
        ``device``, ``autocast``, ``accumulate``, ``normalizer``, ``clip_grad_norm`` and ``clip_grad_value`` of
        `strombus.networks.Network`; all else comes from the file.

    Returns
    -------
    MultiLayerNetwork or ComputationGraph
        Around a plain torch module whose layers have DL4J's names. Arrays are in DL4J's layouts, images
        (examples, channels, height, width), sequences (examples, size, time), masks (examples, time); softmax outputs
        are probabilities. The normalizer in the zip comes along. ``network.dl4j`` keeps the configuration and where
        each parameter stands.

    Raises
    ------
    MissingDataError
        When there is no such file.
    DataError
        When the file is damaged, or contradicts itself.
    ConfigurationError
        For a layer or an option that is not read: names it, its place and what to do.
    """
    if wrong := options.keys() - _OPTIONS:
        raise ConfigurationError(
            f"load_dl4j takes {', '.join(sorted(_OPTIONS))}, got {', '.join(sorted(wrong))}: "
            "all else comes from the file"
        )
    model, saved = _read(path, training)
    records, name, training = model.origin.records, str(path), model.origin.training
    penalties = {r.name: read_penalties(r, f"{name}, layer {r.layer}", training) for r in records}
    for key, attribute in (("l1", "l1"), ("l2", "l2"), ("weight_decay", "decay")):
        amounts = {r: float(getattr(penalty, attribute)) for r, penalty in penalties.items()}
        options[key] = {r: amount for r, amount in amounts.items() if amount}
    trainings = _trainings(model, name, needed=optimizer is None) if training else ()
    pairs = [(r.name, one) for r, one in zip(records, trainings, strict=False) if r.trainable]
    factory = OptimizerFactory(tuple(one for _, one in pairs), tuple(parameter for parameter, _ in pairs))
    restores = optimizer is None and bool(pairs)
    if restores:
        optimizer, schedule = factory, schedule or factory.schedule()
    options["normalize_gradients"] = GradientNormalization(factory.trainings, factory.names) or None
    loss: Any = model.losses
    network: Network
    if model.graph:
        network = ComputationGraph(model.module, loss, optimizer, schedule=schedule, **options)
    else:
        network = MultiLayerNetwork(model.module, loss and loss[0], optimizer, schedule=schedule, **options)
    network.iteration, network.epoch, network.dl4j = model.iteration, model.epoch, model.origin
    if restores:
        restore_updater(network, model.origin, trainings, name)
    if network.optimizer is not None:
        model.origin.updater_state = None  # the network has it now, or has no use for it
    if not saved and network.normalizer is None and (data := model.origin.entries.get(NORMALIZER)) is not None:
        network.normalizer = read_normalizer(data, f"{name}, {NORMALIZER}")
    return network.load(path, updater=training) if saved else network


def _trainings(model: Model, name: str, needed: bool) -> tuple[Training, ...]:
    """Return how each parameter is trained; nothing where no layer has an updater, as in networks for predictions.

    Where the caller has an optimizer, what is not read is not `needed`.
    """
    records = model.origin.records
    try:
        return read_trainings(records, name) if any(record.updater for record in records) else ()
    except ConfigurationError as error:
        if needed:
            error.add_note("load_dl4j(..., optimizer=...) trains by another rule, training=False predicts and scores")
            raise
        return ()


def _read(path: str | os.PathLike[str], training: bool) -> tuple[Model, bool]:
    try:
        start, _ = read_start(path, len(MAGIC))
        if start == MAGIC:
            raise DataError(f"{path} is a normalizer of DL4J's, not a model; strombus.data.load_normalizer reads it")
        if not start.startswith(b"PK"):
            return _saved(path, training), True
        files, target = open_storage(path)
        with files.open(target, "rb") as file:
            return read_model(file, str(path), training), False
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingDataError(f"there is no model at {path}; ModelSerializer.writeModel of DL4J writes one") from error


def _saved(path: str | os.PathLike[str], training: bool) -> Model:
    """Make the network whose values `network.save` wrote; they are loaded later."""
    configuration, entries, trained, size = read_origin(path)
    model = make_model(configuration, str(path), training and trained)
    count = sum(record.size for record in model.origin.records)
    if count * model.module.dtype.itemsize > size:
        raise DataError(f"{path} is damaged: its configuration has {count:,} parameters, its tensors {size:,} bytes")
    write_coefficients_(model.module, model.origin.records, np.zeros(count, np.float32))
    model.origin.entries = entries
    return model
