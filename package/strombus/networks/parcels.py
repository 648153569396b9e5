"""A network's state, or any named arrays, as bytes: safetensors and JSON, so that nothing is executed on reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from strombus.errors import WireError
from strombus.networks.saving import from_json, to_json
from strombus.types import NetworkState, UpdaterState

__all__ = ["pack_arrays", "pack_state", "unpack_arrays", "unpack_state"]

_RECORD = "record"


def pack_arrays(arrays: Mapping[str, NDArray[Any]], record: Any = None) -> bytes:
    """Return named arrays and one JSON-able record as bytes."""
    note = np.frombuffer(json.dumps(to_json(record)).encode(), np.uint8)
    plain = {f"array.{name}": np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in arrays.items()}
    return bytes(save({**plain, _RECORD: note}))


def unpack_arrays(data: bytes | memoryview) -> tuple[dict[str, NDArray[Any]], Any]:
    """Return what `pack_arrays` was given.

    Raises
    ------
    WireError
        When `data` is something else, or damaged.
    """
    try:
        found = load(bytes(data))
        record = from_json(json.loads(found.pop(_RECORD).tobytes()))
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise WireError(f"arrays from a peer cannot be read: {type(error).__name__}: {error}") from error
    return {name.removeprefix("array."): array for name, array in found.items()}, record


def pack_state(state: NetworkState) -> bytes:
    """Return a network's whole state as bytes.

    Raises
    ------
    TypeError
        When hyper-parameters or the schedule hold something that JSON cannot express.
    """
    updater = state.updater
    arrays = {"parameters": state.parameters}
    arrays |= {f"buffer.{name}": np.asarray(array) for name, array in state.buffers.items()}
    record: dict[str, Any] = {"iteration": state.iteration, "updater": None}
    if updater is not None:
        arrays |= {f"updater.{name}": np.asarray(array) for name, array in updater.tensors.items()}
        record["updater"] = {"groups": list(updater.groups), "schedule": updater.schedule}
    return pack_arrays(arrays, record)


def unpack_state(data: bytes | memoryview) -> NetworkState:
    """Return the state that `pack_state` was given; WireError when `data` is none."""
    arrays, record = unpack_arrays(data)
    try:
        kept = record["updater"]
        tensors = {name[8:]: array for name, array in arrays.items() if name.startswith("updater.")}
        return NetworkState(
            arrays["parameters"],
            {name[7:]: array for name, array in arrays.items() if name.startswith("buffer.")},
            None if kept is None else UpdaterState(tensors, tuple(kept["groups"]), kept["schedule"]),
            int(record["iteration"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"a state from a peer is incomplete: {type(error).__name__}: {error}") from error
