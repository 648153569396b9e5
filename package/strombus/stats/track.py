"""The events of one phase, as rows of numbers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.types import Event

__all__ = ["Track", "flatten"]


class Track:
    """The events of one phase by one worker in one process: a row of numbers each, and exact totals.

    Parameters
    ----------
    name, rank, host
        As in `Event`.
    figures : tuple of str
        Names of the figures that each event has.

    Attributes
    ----------
    rows : array of float
        Start, duration and the figures of each event that was kept, one after another.
    every : int
        One event in so many was kept.
    count : int
        Events that happened, kept or not; `seconds`, `longest` and `sums` (of the figures) are of them all.
    """

    __slots__ = ("count", "every", "figures", "host", "longest", "name", "rank", "rows", "seconds", "sums")

    def __init__(self, name: str, rank: int | None, host: str, figures: tuple[str, ...]) -> None:
        self.name, self.rank, self.host, self.figures = name, rank, host, figures
        self.rows = array("d")
        self.every, self.count, self.seconds, self.longest = 1, 0, 0.0, 0.0
        self.sums = [0.0] * len(figures)

    def __len__(self) -> int:
        return len(self.rows) // (2 + len(self.figures))

    def add(self, started: float, seconds: float, figures: Sequence[float]) -> bool:
        """Take in an event; say whether its row was kept."""
        keep = self.count % self.every == 0
        self.count += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        for number, value in enumerate(figures):
            if math.isfinite(total := self.sums[number] + value):
                self.sums[number] = total
        if keep:
            self.rows.extend((started, seconds, *figures))
        return keep

    def merge(self, other: Track) -> None:
        """Take in all that another track of the same kind holds."""
        while self.every < other.every:
            self.thin()
        # Where each of its rows would stand among all events of both.
        places = self.count + np.arange(len(other)) * other.every
        kept = other.table()[places % self.every < other.every]
        self.rows.frombytes(kept.tobytes())
        self.count += other.count
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)
        self.sums = [mine + theirs for mine, theirs in zip(self.sums, other.sums, strict=True)]

    def thin(self) -> None:
        """Keep every second row; the totals stay."""
        kept = np.ascontiguousarray(self.table()[::2])
        self.rows = array("d", kept.tobytes())
        self.every *= 2

    def table(self) -> NDArray[np.float64]:
        """Return the rows, shape (kept, 2 + figures)."""
        return np.array(self.rows, np.float64).reshape(-1, 2 + len(self.figures))

    def events(self, offset: float) -> Iterator[Event]:
        """Yield the events that were kept, their clock set forward by `offset` seconds."""
        for started, seconds, *figures in self.table().tolist():
            values = _nested(dict(zip(self.figures, figures, strict=True)))
            yield Event(self.name, self.rank, started + offset, seconds, self.host, values)


def flatten(values: Mapping[str, Any]) -> dict[str, float]:
    """Return figures as numbers, those of mappings under ``outer/inner``, None as NaN."""
    if all(type(value) is float or type(value) is int for value in values.values()):
        return values  # type: ignore[return-value]
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{inner}": number for inner, number in flatten(value).items()}
        else:
            found[name] = math.nan if value is None else float(value)
    return found


def _nested(values: dict[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        outer, slash, inner = name.partition("/")
        if slash:
            found.setdefault(outer, {})[inner] = value
        else:
            found[name] = value
    return found
