"""Counts, or sums of weights, by key, as compact as the keys allow."""

from __future__ import annotations

from typing import Any

import numpy as np

from strombus.evaluation.base import Array

__all__ = ["Tally", "plain"]

_SMALLEST = 4096


def plain(count: Any) -> float:
    """Return a count as an int, a sum of weights as a float."""
    found: float = count.item()
    return found


class Tally:
    """Sorted unique keys, each with a row of counts; equal keys are one.

    New keys wait until they are as many as those already sorted, so that the work grows as n log n.

    Parameters
    ----------
    dtype : numpy dtype of the keys
    width : int
        Counts of a key.
    """

    def __init__(self, dtype: Any, width: int) -> None:
        self._parts: list[tuple[Array, Array]] = [(np.empty(0, dtype), np.empty((0, width), np.int64))]
        self._waiting = 0

    def add(self, keys: Array, counts: Array) -> None:
        """Add `counts`, shape (n, width), to those of `keys`, shape (n,); a key may come several times.

        They are int64 until the first that are float64.
        """
        first = self._parts[0][0]
        self._parts.append((keys.astype(first.dtype) + first.dtype.type(0), counts))  # -0.0 becomes 0.0
        self._waiting += len(keys)
        if self._waiting > max(_SMALLEST, len(first)):
            self.read()

    def merge(self, other: Tally) -> None:
        """Add another tally's counts."""
        self.add(*other.read())

    def read(self) -> tuple[Array, Array]:
        """Return the keys, ascending, and their counts, shape (keys, width)."""
        if len(self._parts) > 1:
            keys, counts = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
            order = np.argsort(keys, kind="stable")
            keys, counts = keys[order], counts[order]
            starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])
            self._parts = [(keys[starts], np.add.reduceat(counts, starts, axis=0) if len(keys) else counts)]
            self._waiting = 0
        return self._parts[0]

    def __getstate__(self) -> dict[str, Any]:
        self.read()  # so that it travels compact
        return self.__dict__.copy()
