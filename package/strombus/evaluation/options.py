"""Check what metrics are given as options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.documents import shorten
from strombus.errors import ConfigurationError

__all__ = ["MOST", "at_least", "axis_of", "names_of", "number_of", "numbers_of", "one_of"]


MOST = 10_000_000
"""Classes, bins or steps: figures of each of them are to fit into memory."""


def names_of(labels: Any, count: int | None, what: str = "labels") -> list[str] | None:
    """Return names as a list; a mapping must number them from 0 without a gap.

    Raises
    ------
    ConfigurationError
        When a number is missing, or there are not `count` names.
    """
    if labels is None:
        return None
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ConfigurationError(f"{what} must be a list of names, got {shorten(labels)}")
    if isinstance(labels, Mapping):
        if missing := set(range(len(labels))) - set(labels):
            raise ConfigurationError(
                f"{what} must number the names 0 to {len(labels) - 1}; there is none for {min(missing)}"
            )
        labels = [labels[number] for number in range(len(labels))]
    names = [str(name) for name in labels]
    if not names or count not in (None, len(names)):
        raise ConfigurationError(f"{what} needs one name for each of {count or 'the'} outputs, got {len(names)}")
    return names


def at_least(name: str, value: Any, least: int, most: int = MOST) -> int:
    """Return `value` as an integer; ConfigurationError when it is none, or is below `least` or above `most`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigurationError(f"{name} must be an integer of at least {least}, got {shorten(value)}")
    if value > most:
        raise ConfigurationError(f"{name} must be at most {most}, got {shorten(value)}")
    return int(value)


def axis_of(value: Any) -> int:
    """Return `value` as the number of an axis; ConfigurationError when it is none."""
    return at_least("axis", value, -32, 32)


def numbers_of(name: str, value: Any, most_axes: int = 1) -> NDArray[np.float64]:
    """Return finite numbers as an array; ConfigurationError when they are not, or have more axes."""
    try:
        found = np.asarray(None if isinstance(value, bool | str) else value, np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.asarray(np.nan)
    if found.ndim > most_axes or not np.isfinite(found).all():
        raise ConfigurationError(f"{name} must be {'numbers' if most_axes else 'a number'}, got {shorten(value)}")
    return found


def one_of(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    """Return what `value` equals among `known`; ConfigurationError when there is none."""
    if value not in known:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, known))}, got {shorten(value)}")
    return known[known.index(value)]


def number_of(label: Any, count: int, what: str) -> int:
    """Return `label` as an index below `count`; ConfigurationError when it is none."""
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 <= label < count:
        raise ConfigurationError(f"{what} must be a number from 0 to {count - 1}, got {label!r}")
    return int(label)
