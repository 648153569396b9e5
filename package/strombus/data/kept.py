"""What was read last, kept in memory up to a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

__all__ = ["CACHE_BYTES", "Kept"]

CACHE_BYTES = 64 << 20
"""What one source keeps in one process."""


class Kept:
    """Arrays, or columns of them, that were read last. Callers see to locking.

    Attributes
    ----------
    nbytes : int
        That all of them take, at most `CACHE_BYTES`.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self.nbytes = 0

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value of `key`, made where it is not kept."""
        if key not in self._values:
            self._values[key] = made = make()
            self.nbytes += _bytes(made)
        self._values.move_to_end(key)
        found = self._values[key]
        while self.nbytes > CACHE_BYTES:
            self.nbytes -= _bytes(self._values.popitem(last=False)[1])
        return found

    def clear(self) -> None:
        """Forget all of it."""
        self._values.clear()
        self.nbytes = 0


def _bytes(value: Any) -> int:
    return sum(array.nbytes for array in value.values()) if isinstance(value, Mapping) else int(value.nbytes)
