"""What a worker's clock says, so that the driver can compare it with its own."""

from __future__ import annotations

import time

from strombus.stats import where

__all__ = ["read_clock"]


def read_clock(shared: None, part: int) -> tuple[str, float]:
    """Return this process (``"name:pid"``) and its time."""
    return where(), time.time()
