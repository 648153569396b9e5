"""What an engine can run at the same time."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Capacity"]


@dataclass(frozen=True, slots=True)
class Capacity:
    """Slots, hosts and threads of an engine.

    Parameters
    ----------
    slots : int or None
        Worker processes that run at the same time; None when the engine does not say.
    hosts : tuple of str
        The distinct hosts behind the slots, sorted.
    threads : int
        CPU threads that one slot may use.
    """

    slots: int | None
    hosts: tuple[str, ...] = ()
    threads: int = 1
