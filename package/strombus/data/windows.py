"""Windows of an epoch's order, filled block by block."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from strombus.data.order import Window, window_rows
from strombus.data.source import Source
from strombus.types import Block, Columns

__all__ = ["Filling", "Windows"]


class Filling(Protocol):
    """Runs of rows that are made one after the other."""

    def ahead(self) -> bool:
        """Do one step of the next run; False when there is none to do."""

    def take(self) -> Columns | None:
        """Finish the next run and return it, None after the last."""


class _Window:
    """Rows `start` to `stop` of the order, inside one window, filled block by block."""

    def __init__(
        self, source: Source, window: Window, start: int, stop: int, permutation: tuple[int, int, bool]
    ) -> None:
        self._source = source
        self.rows = stop - start
        self.columns: Columns = {n: np.empty((self.rows, *c.shape), c.dtype) for n, c in source.columns.items()}
        wanted = window_rows(window, *permutation)[start - window.start : stop - window.start]
        shuffled = permutation[2] or window.drawn is not None
        self._todo = deque(_scattered(window, wanted) if shuffled else _contiguous(window, wanted))

    def step(self) -> bool:
        """Read one block, once, and put its rows where they belong; False when nothing is left to do."""
        if not self._todo:
            return False
        block, places, rows = self._todo.popleft()
        for name, array in self._source.read(block).items():
            self.columns[name][places] = array if rows is None else array[rows]
        return True


def _contiguous(window: Window, wanted: Any) -> Iterator[tuple[Block, Any, Any]]:
    """Plan an unshuffled window, which has one block: slices cost less than indices."""
    yield window.blocks[0], slice(None), slice(int(wanted[0]), int(wanted[-1]) + 1)


def _scattered(window: Window, wanted: Any) -> Iterator[tuple[Block, Any, Any]]:
    """Plan which rows of each block go to which places; a block that is wanted whole needs no gather."""
    if len(wanted) == window.whole:  # the inverse of a permutation needs no sorting
        places = np.empty_like(wanted)
        places[wanted] = rows = np.arange(len(wanted))
    else:
        places = np.argsort(wanted)
        rows = wanted[places]
    first = 0
    for block in window.blocks:
        low, high = np.searchsorted(rows, (first, first + block.rows))
        if high > low:
            whole = high - low == block.rows
            yield block, places[low:high], None if whole else rows[low:high] - first
        first += block.rows


class Windows:
    """Rows `start` to `stop` of an order, window by window; the next one can be filled in small steps.

    `permutation` is (seed, epoch, shuffle).
    """

    def __init__(
        self, source: Source, order: Sequence[Window], start: int, stop: int, permutation: tuple[int, int, bool]
    ) -> None:
        self._spans = (
            _Window(source, window, max(start, window.start), min(stop, window.stop), permutation)
            for window in order
            if window.start < stop and window.stop > start
        )
        self._next: _Window | None = None

    def ahead(self) -> bool:
        """Do one step of the next window; False when there is none to do."""
        if self._next is None:
            self._next = next(self._spans, None)
        return self._next is not None and self._next.step()

    def take(self) -> Columns | None:
        """Finish the next window and return it, None after the last."""
        while self.ahead():
            pass
        filled, self._next = self._next, None
        return None if filled is None else filled.columns
