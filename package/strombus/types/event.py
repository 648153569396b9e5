"""One timed phase of a job, or a small record a member reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Event"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened somewhere, small enough to travel to the driver.

    Parameters
    ----------
    name : str
        The phase, such as ``"fit"`` or ``"export"``.
    rank : int or None
        The worker, None for the driver.
    started : float
        Seconds since the Unix epoch.
    seconds : float
        Duration.
    host : str
        Host and process, ``"name:pid"``.
    values : mapping
        Figures of the event (``examples``, ``loss``, ...).
    payload : bytes
        Raw bytes, at most a few megabytes; empty for all but the records that carry arrays.
    """

    name: str
    rank: int | None = None
    started: float = 0.0
    seconds: float = 0.0
    host: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = field(default=b"", repr=False)
