"""Something that was found out about an installation or a cluster, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    level : {"ok", "note", "warning", "problem"}
        "warning": training is slower or riskier than it need be; "problem": it cannot run.
    topic : str
        A word, such as ``"versions"``.
    text : str
        What was found.
    advice : str
        What to change, down to the option or flag; empty where there is nothing to do.
    """

    level: Literal["ok", "note", "warning", "problem"]
    topic: str
    text: str
    advice: str = ""
