"""ND4J's arrays within DL4J's JSON: as numbers, or as the bytes of ``Nd4j.write`` in base64."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.documents import shorten
from strombus.errors import DataError
from strombus.interchange.dl4j.ndarray import read_ndarray, write_ndarray

__all__ = ["packed", "read_array", "text_array"]

_TYPES = {"DOUBLE": np.float64, "FLOAT": np.float32, "INT": np.int32, "LONG": np.int64}
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}


def read_array(value: Any) -> NDArray[Any]:
    """Return an array in any of the forms; DataError for anything else, and for what is not finite."""
    if isinstance(value, list):
        found = np.array(value, np.float64)
    elif isinstance(value, Mapping) and "array" in value:
        try:
            found = np.asarray(read_ndarray(base64.b64decode(str(value["array"]), validate=False)))
        except binascii.Error as error:
            raise DataError(f"an array is no base64: {error}") from None
    elif isinstance(value, Mapping) and {"dataType", "shape", "data"} <= set(value):
        kind = _TYPES.get(str(value["dataType"]))
        if kind is None:
            raise DataError(f"an array of {shorten(value['dataType'])} is not read here; known: {', '.join(_TYPES)}")
        found = np.array(value["data"], kind).reshape([int(side) for side in value["shape"]])
    else:
        raise DataError(f"an array is written as numbers or in base64, got {shorten(value)}")
    if found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        raise DataError("an array of an evaluation must hold finite numbers")
    return found


def text_array(values: Any) -> dict[str, Any]:
    """Return an array as type, shape and numbers in row-major order."""
    array = np.asarray(values)
    return {"dataType": _NAMES[array.dtype], "shape": list(array.shape), "data": array.reshape(-1).tolist()}


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as the bytes of ``Nd4j.write`` in base64, in lines of 76 characters."""
    target = io.BytesIO()
    write_ndarray(target, array)
    coded = base64.b64encode(target.getvalue()).decode("ascii")
    return {"array": "".join(f"{coded[at : at + 76]}\r\n" for at in range(0, len(coded), 76))}
