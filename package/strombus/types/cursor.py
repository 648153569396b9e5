"""Where in its epochs a training stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from strombus.errors import DataError

__all__ = ["Cursor", "Span"]

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cursor:
    """What is left to be trained of an epoch.

    Parameters
    ----------
    epoch : int
        From zero since the network was made.
    number : int
        Rounds, or steps of the longest member, that were taken of it; 0 at an epoch's start.
    workers : int
        How many trained it.
    left : tuple of tuple of (int, int)
        For each rank the stretches of the epoch's order that it has not trained; empty at an epoch's start, and
        where an engine holds the rows.
    """

    epoch: int
    number: int = 0
    workers: int = 0
    left: tuple[tuple[Span, ...], ...] = ()

    @property
    def within(self) -> bool:
        """Whether some of the epoch was trained."""
        return self.number > 0

    def to_dict(self) -> dict[str, Any]:
        """Return a form for JSON."""
        return {"epoch": self.epoch, "number": self.number, "workers": self.workers, "left": self.left}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote; DataError when `values` is something else."""
        try:
            left = tuple(tuple(_span(span) for span in _list(spans)) for spans in _list(values["left"]))
            found = cls(_count(values["epoch"]), _count(values["number"]), _count(values["workers"]), left)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"no place in an epoch: {type(error).__name__}: {error}") from None
        return found


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"wanted a count, got {value!r}")
    return value


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"wanted a list, got {value!r}")
    return value


def _span(value: Any) -> Span:
    start, stop = _list(value)
    if not _count(start) < _count(stop):
        raise ValueError(f"wanted a stretch of rows, got {value!r}")
    return start, stop
