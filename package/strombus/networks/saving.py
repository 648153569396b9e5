"""A network's values as one safetensors file: tensors, and JSON for the rest; no pickle."""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.torch import load as parse
from safetensors.torch import save as serialize
from torch import Tensor

from strombus.documents import parse_json, shorten
from strombus.errors import ConfigurationError, DataError, MissingDataError
from strombus.files import read_start, read_whole, write_whole
from strombus.networks import checks
from strombus.networks.flat import module_tensors, to_numpy, trainable
from strombus.normalizers import Normalizer
from strombus.types import NetworkState, UpdaterState

if TYPE_CHECKING:
    from strombus.networks.network import Network

__all__ = ["from_json", "load", "pack", "read_origin", "save", "to_json"]

FORMAT = 1
_KEY = "strombus"
_PAIRS = "$pairs"

_LARGER = 16
"""How many times the module's bytes a file may have: an optimizer keeps a few values for each parameter."""

_HEADER = 64 << 20
"""Bytes of the names, shapes and metadata in a file."""

_SHOWN = 50
"""Differences that one error lists."""


def save(network: Network, path: str | PathLike[str], updater: bool = True) -> None:
    """Write `network` to `path` in one piece: a reader sees the whole file or the one before; see `pack`.

    Raises
    ------
    ConfigurationError
        When the updater holds values that JSON cannot express.
    """
    write_whole(path, pack(network, network.updater if updater else None))


def pack(
    network: Network, updater: UpdaterState | None, state: NetworkState | None = None, epoch: int | None = None
) -> bytes:
    """Return a network's values as the bytes of a file.

    Parameters
    ----------
    updater : UpdaterState or None
        The optimizer's state, where it is to be in it.
    state : NetworkState, optional
        Trainable parameters, buffers and iteration to be written in place of the network's own; `epoch` likewise.

    Notes
    -----
    Tensors are called ``module.<name>`` (parameters, frozen ones too, and persistent buffers; tied ones
    once) and ``updater.<parameter index>.<name>``. The metadata's entry "strombus" is JSON: format version,
    class, iteration, epoch, score, dtype, the updater's groups and schedule, and the normalizer; of a network that
    came from DL4J its configuration, and what else its zip had.

    Raises
    ------
    ConfigurationError
        When the updater holds values that JSON cannot express.
    """
    values = module_tensors(network.module)
    if state is not None:
        values |= _tensors_of(state, network)
    tensors = {f"module.{name}": tensor.detach() for name, tensor in values.items()}
    header: dict[str, Any] = {
        "format": FORMAT,
        "class": type(network).__name__,
        "iteration": network.iteration if state is None else state.iteration,
        "epoch": network.epoch if epoch is None else epoch,
        "score": network.score,
        "dtype": str(network.dtype).removeprefix("torch."),
        "updater": None,
        "normalizer": None if network.normalizer is None else network.normalizer.to_dict(),
    }
    if network.dl4j is not None:
        entries = {name: base64.b64encode(data).decode() for name, data in network.dl4j.entries.items()}
        origin = {"configuration": network.dl4j.configuration, "entries": entries, "training": network.dl4j.training}
        header["dl4j"] = origin
    if updater is not None:
        tensors |= {f"updater.{key}": torch.tensor(array) for key, array in updater.tensors.items()}
        header["updater"] = {"groups": to_json(list(updater.groups)), "schedule": to_json(updater.schedule)}
    try:
        text = json.dumps(header)
    except TypeError as error:
        raise ConfigurationError(
            f"the updater's state cannot be written as JSON ({error}); save with updater=False"
        ) from error
    # contiguous copies: a tensor that is a view of something larger is no safetensors tensor
    copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    return bytes(serialize(copies, {_KEY: text}))


def _tensors_of(state: NetworkState, network: Network) -> dict[str, Tensor]:
    """Return a state's arrays by the names, and in the types, of the module's tensors."""
    found = {name: torch.tensor(array) for name, array in state.buffers.items()}
    start = 0
    for name, parameter in trainable(network.module).items():
        piece = torch.tensor(state.parameters[start : start + parameter.numel()])
        found[name] = piece.view(parameter.shape).to(parameter.dtype)
        start += parameter.numel()
    return found


def load(network: Network, path: str | PathLike[str], updater: bool = True) -> None:
    """Read what `save` wrote into `network`; nothing changes unless everything fits.

    Raises
    ------
    MissingDataError
        When there is no such file.
    DataError
        When the file is corrupt, or its tensors differ from the module's; lists which.
    """
    mine = module_tensors(network.module)
    data = _read(path, _LARGER * sum(tensor.nbytes for tensor in mine.values()) + _HEADER)
    header, tensors = _parse(data, str(path))
    theirs = {name.removeprefix("module."): t for name, t in tensors.items() if name.startswith("module.")}
    differences = _differences(mine, theirs)
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise DataError(f"{path} holds another module's values: {'; '.join(differences[:_SHOWN])}{more}")
    normalizer = _normalizer(header, str(path)) if "normalizer" in header else network.normalizer
    if updater:
        network.restore_updater(_updater(header, tensors, str(path)))
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(theirs[name])
    network.normalizer = normalizer
    network.iteration, network.epoch, network.score = header["iteration"], header["epoch"], header["score"]


def _differences(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    found = [f"{name} is missing" for name in mine if name not in theirs]
    found += [f"{name[:200]} is not in the module" for name in theirs if name not in mine]
    for name in mine.keys() & theirs.keys():
        here, there = mine[name], theirs[name]
        if here.shape != there.shape:
            found.append(f"{name[:200]} has shape {tuple(there.shape)}, the module's {tuple(here.shape)}")
        elif here.dtype != there.dtype:
            found.append(f"{name} is {there.dtype}, the module's {here.dtype}")
    return sorted(found)


def _parse(data: bytes, path: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Take the file apart, trusting none of it."""
    try:
        tensors = parse(data)
        length = int.from_bytes(data[:8], "little")
        header = parse_json(parse_json(data[8 : 8 + length], _HEADER)["__metadata__"][_KEY], _HEADER, finite=False)
    except Exception as error:  # safetensors and torch raise a dozen kinds
        what = f"{type(error).__name__}: {str(error)[:500]}"
        raise DataError(f"{path} is no network file, or is damaged: {what}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        version = header.get("format") if isinstance(header, dict) else None
        raise DataError(f"{path} has format {shorten(version)}; this version of Strombus reads format {FORMAT}")
    for name in ("iteration", "epoch"):
        if type(header.get(name)) is not int or not 0 <= header[name] <= 2**53:
            raise DataError(f"{path} is damaged: {name} must be a count, got {shorten(header.get(name))}")
    score = header.get("score", "nothing")
    if score is not None and type(score) not in (int, float):
        raise DataError(f"{path} is damaged: score must be a number or null, got {shorten(score)}")
    return header, tensors


def read_origin(path: str | PathLike[str]) -> tuple[str, dict[str, bytes], bool, int]:
    """Return the configuration of a network that came from DL4J, and what else its zip had, from a file of `save`.

    Returns
    -------
    configuration : str
    entries : dict of str to bytes
    training : bool
        Whether it was read to be trained.
    size : int
        Bytes of the file's tensors.

    Raises
    ------
    DataError
        When the file is damaged, or holds another network.
    """
    try:
        start, size = read_start(path, 8)
        length = int.from_bytes(start, "little")
        data, _ = read_start(path, 8 + min(length, _HEADER))
        header = parse_json(parse_json(data[8:], _HEADER)["__metadata__"][_KEY], _HEADER, finite=False)
        found = header["dl4j"]
        entries = {name: base64.b64decode(value, validate=True) for name, value in found["entries"].items()}
        return str(found["configuration"]), entries, found.get("training") is not False, size - 8 - length
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise DataError(
            f"{path} is neither a model zip of DL4J nor a saved network that came from one "
            f"({type(error).__name__}: {shorten(str(error))})"
        ) from None
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingDataError(f"there is no network file at {path}") from error


def _updater(header: dict[str, Any], tensors: dict[str, Tensor], path: str) -> UpdaterState | None:
    values = header.get("updater")
    if values is None:
        return None
    groups = from_json(values.get("groups")) if isinstance(values, dict) else None
    schedule = from_json(values.get("schedule")) if isinstance(values, dict) else None
    whole = isinstance(groups, list) and all(isinstance(group, dict) for group in groups)
    if not whole or not isinstance(schedule, dict | None):
        raise DataError(f"{path} is damaged: the updater's groups or schedule are no records")
    kept = {name.removeprefix("updater."): tensor for name, tensor in tensors.items() if name.startswith("updater.")}
    try:
        arrays = {name: to_numpy(tensor) for name, tensor in kept.items()}
    except (TypeError, RuntimeError) as error:  # torch has numbers that NumPy has not
        raise DataError(f"{path} is damaged: the updater's tensors are of an unknown kind: {error}") from error
    return UpdaterState(arrays, tuple(cast(list[dict[str, Any]], groups)), schedule)


def _normalizer(header: dict[str, Any], path: str) -> Normalizer | None:
    record = header["normalizer"]
    try:
        return None if record is None else checks.normalizer(Normalizer.from_dict(record))
    except (ConfigurationError, DataError) as error:
        raise DataError(f"{path} holds a normalizer that cannot be read: {error}") from error


def to_json(value: Any) -> Any:
    """Return a JSON form: write mappings whose keys are no strings as pairs; JSON would turn the keys into strings."""
    if isinstance(value, dict | Counter):
        if all(isinstance(key, str) for key in value):
            return {key: to_json(item) for key, item in value.items()}
        return {_PAIRS: [[key, to_json(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def from_json(value: Any) -> Any:
    """Return what `to_json` was given, tuples as lists."""
    if isinstance(value, dict):
        if set(value) == {_PAIRS}:
            try:
                return {key: from_json(item) for key, item in value[_PAIRS]}
            except (TypeError, ValueError) as error:
                raise DataError("a network file's mapping is damaged") from error
        return {key: from_json(item) for key, item in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list) else value


def _read(path: str | PathLike[str], most: int) -> bytes:
    try:
        return read_whole(path, most)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingDataError(f"there is no network file at {path}; network.save(path) writes one") from error
