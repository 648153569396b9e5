"""Descriptions of rows, never the rows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Block", "Partition"]


@dataclass(frozen=True, slots=True)
class Block:
    """A run of rows that is read in one call: rows ``start`` to ``stop`` of part `part`.

    `part` is the part's number in its source, `start` and `stop` count within the part.
    """

    part: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Partition:
    """Rows ``start`` to ``stop`` of an epoch's order, given to the worker `rank`."""

    rank: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start
