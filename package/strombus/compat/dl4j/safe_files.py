"""Objects in files of formats that can hold no code."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np

from strombus.data import store
from strombus.data.npz import read_npz
from strombus.errors import ConfigurationError, DataError
from strombus.files import open_storage
from strombus.stats import TrainingStats
from strombus.types import DataSet, MultiDataSet, from_columns

__all__ = ["read_object", "write_object"]

_KINDS = "an array, a DataSet or MultiDataSet, TrainingStats, what has to_json and from_json, or plain values"


def write_object(path: str, value: Any) -> None:
    """Write an object.

    Parameters
    ----------
    path : path or URI
    value : object
        An ndarray (written as npy), a data set (npz), training statistics or what has ``to_json`` (JSON), or plain
        values: numbers, texts, None, lists and mappings of them (JSON).

    Raises
    ------
    ConfigurationError
        For anything else.
    """
    system, target = open_storage(store.normalise(path))
    system.makedirs(target.rpartition("/")[0], exist_ok=True)
    system.pipe_file(target, _encoded(value))


def _encoded(value: Any) -> bytes:
    buffer = BytesIO()
    if isinstance(value, np.ndarray) and value.dtype != object:
        np.save(buffer, value, allow_pickle=False)
        return buffer.getvalue()
    if isinstance(value, DataSet | MultiDataSet):
        np.savez(buffer, **value.columns())  # type: ignore[arg-type]
        return buffer.getvalue()
    if isinstance(value, TrainingStats):
        return value.pack()
    if hasattr(value, "to_json"):
        return str(value.to_json()).encode()
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"what is written to a file must be {_KINDS}; got {type(value)}: {error}") from None


def read_object(path: str, kind: type) -> Any:
    """Read what `write_object` wrote as a `kind`, the class of what was written.

    Raises
    ------
    DataError
        When the file is missing, damaged, or holds another kind.
    """
    system, source = open_storage(store.normalise(path))
    try:
        data = bytes(system.cat_file(source))
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    try:
        value = _decoded(data, kind, path)
    except Exception as error:  # each format's reader raises kinds of its own
        raise DataError(f"{path} does not hold a {kind.__name__}: {error}") from None
    if not isinstance(value, kind):
        raise DataError(f"{path} does not hold a {kind.__name__}, but a {type(value).__name__}")
    return value


def _decoded(data: bytes, kind: type, path: str) -> Any:
    if issubclass(kind, np.ndarray):
        return np.load(BytesIO(data), allow_pickle=False)
    if issubclass(kind, DataSet | MultiDataSet):
        found = from_columns(kind.kind, read_npz(BytesIO(data), path))
        return found if type(found) is kind else kind(*(getattr(found, name) for name in found.__slots__))
    if issubclass(kind, TrainingStats):
        return TrainingStats.unpack(data, path)
    if hasattr(kind, "from_json"):
        return kind.from_json(data.decode())
    return json.loads(data)
