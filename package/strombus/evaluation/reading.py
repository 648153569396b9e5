"""Read statistics back that were written as JSON or YAML, without trusting them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from strombus.errors import DataError
from strombus.evaluation.base import Array

__all__ = ["read_counts", "read_number", "read_values", "read_weights"]


def read_values(statistics: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> Array:
    """Return an array of finite float64; None in `shape` is any length.

    Raises
    ------
    DataError
        When it is missing, or of another shape or kind.
    """
    return _read(statistics, name, shape, "finite numbers").astype(np.float64)


def read_counts(statistics: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> Array:
    """Return an array of int64, none of them negative; see `read_values`."""
    array = _read(statistics, name, shape, "counts")
    if array.size and (array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 2**53):
        raise DataError(f"statistics: {name} must hold counts, which are integers of at least 0 and at most 2^53")
    return array.astype(np.int64)


def read_weights(statistics: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> Array:
    """Return counts, or sums of weights of at least 0 as float64 where any is no integer; see `read_values`."""
    array = _read(statistics, name, shape, "counts or sums of weights")
    if array.dtype.kind != "f":
        return read_counts(statistics, name, shape)
    if array.size and array.min() < 0:
        raise DataError(f"statistics: {name} must hold counts or sums of weights, none below 0")
    return array.astype(np.float64)


def read_number(statistics: Mapping[str, Any], name: str, least: int = 0, most: int = 2**62) -> int:
    """Return an integer of at least `least` and at most `most`; see `read_values`."""
    value = int(read_counts(statistics, name, ()))
    if not least <= value <= most:
        raise DataError(f"statistics: {name} must be at least {least}, at most {most}, got {value}")
    return value


def _read(statistics: Mapping[str, Any], name: str, shape: tuple[int | None, ...], what: str) -> Array:
    try:
        array = np.asarray(statistics[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DataError(f"statistics: {name} is missing or irregular; wanted {what}") from None
    if array.size == 0 and len(shape) > 1:
        array = array.reshape(0, *[side or 0 for side in shape[1:]]).astype(np.int64)
    fits = array.ndim == len(shape) and all(side in (None, have) for side, have in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        wanted = ", ".join("n" if side is None else str(side) for side in shape)
        raise DataError(f"statistics: {name} must be {what} of shape ({wanted}), got shape {array.shape}")
    return array
