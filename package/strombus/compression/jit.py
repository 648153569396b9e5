"""How this package's passes over memory are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["jit"]

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F) -> F:
    """Compile `function` on its first call, without the interpreter's lock; compiled code is kept on disk."""
    return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))
