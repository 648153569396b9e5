"""A row group that is too large to be held at once, some rows at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any

__all__ = ["GroupStream"]


class GroupStream:
    """Rows of one row group after the other; reading on from where the last read ended costs nothing twice.

    For several threads, and at no place in another process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.close()

    def __reduce__(self) -> tuple[type[GroupStream], tuple[()]]:
        return GroupStream, ()

    def close(self) -> None:
        """Forget where it is."""
        self._group: Hashable = None
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._at = 0

    def take(self, group: Hashable, start: int, stop: int, open_batches: Callable[[Any], Iterator[Any]]) -> Any:
        """Return rows `start` to `stop` as a ``pyarrow.Table``; `open_batches` gives a row group's batches."""
        import pyarrow

        with self._lock:
            if group != self._group or start < self._at:
                self.close()
                self._group, self._batches = group, open_batches(group)
            pieces = []
            try:
                while self._at < stop:
                    piece = self._next(stop)
                    if self._at > start:
                        pieces.append(piece.slice(max(0, piece.num_rows - (self._at - start))))
            except BaseException:
                self.close()
                raise
        return pyarrow.Table.from_batches(pieces)

    def _next(self, stop: int) -> Any:
        """Return the rows that come next, up to `stop`."""
        batch = next(self._batches) if self._batch is None else self._batch
        taken = batch.slice(0, stop - self._at)
        self._at += taken.num_rows
        self._batch = batch.slice(taken.num_rows) if taken.num_rows < batch.num_rows else None
        return taken
