"""Check what metrics are given as options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from strombus.errors import ConfigurationError

__all__ = ["at_least", "names_of", "number_of", "one_of"]


def names_of(labels: Any, count: int | None, what: str = "labels") -> list[str] | None:
    """Return names as a list; a mapping must number them from 0 without a gap.

    Raises
    ------
    ConfigurationError
        When a number is missing, or there are not `count` names.
    """
    if labels is None:
        return None
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


def at_least(name: str, value: Any, least: int) -> int:
    """Return `value` as an integer; ConfigurationError when it is none or is below `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigurationError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def one_of(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    """Return what `value` equals among `known`; ConfigurationError when there is none."""
    if value not in known:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return known[known.index(value)]


def number_of(label: Any, count: int, what: str) -> int:
    """Return `label` as an index below `count`; ConfigurationError when it is none."""
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 <= label < count:
        raise ConfigurationError(f"{what} must be a number from 0 to {count - 1}, got {label!r}")
    return int(label)
