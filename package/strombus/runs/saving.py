"""How workers that write checkpoints themselves are told to."""

from __future__ import annotations

from dataclasses import dataclass

from strombus.runs.checkpoint_config import Interval

__all__ = ["MODEL", "Saving", "member_file"]

MODEL = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Saving:
    """Where, and when.

    Parameters
    ----------
    path : str
        The run directory, which every worker must reach.
    token : str
        Of one attempt; files of members that were given up bear another one.
    interval : Interval
    max_share : float
        Part of the training time that checkpoints may take.
    began : int
        The first epoch of the fit, from which epochs are counted.
    """

    path: str
    token: str
    interval: Interval
    max_share: float
    began: int


def member_file(rank: int, token: str) -> str:
    """Return the name of a member's file."""
    return f"member-{rank}-{token}.safetensors"
