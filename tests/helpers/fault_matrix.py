"""Faults, drawn from a seed, for fits of both masters on every backend: the cells of one table."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, fields

__all__ = ["OFTEN", "Cell", "Row", "cells", "sample", "seeds", "table"]

BACKENDS = ("local", "dask", "spark")
MEMBER_PHASES = ("start", "address", "connect", "UPDATE", "save", "END", "PARAMETERS", "REQUEST", "STATE", "result")
OFTEN = ("UPDATE", "save", "END")
"""Phases that a member comes to many times in a fit."""
TASK_PHASES = ("start", "step", "result")
QUICK = ("kill", "slow", "pause", "flip", "raise", "garbage")
"""What is over within a few seconds: no deadline has to pass."""
REFUSED = ("raise", "garbage")
"""What ends a fit, as promised: another attempt would come to the same."""


@dataclass(frozen=True)
class Cell:
    """One fit under one fault."""

    seed: int
    master: str
    backend: str
    fault: str
    phase: str
    rank: int
    step: int

    def __str__(self) -> str:
        return f"{self.seed}-{self.master}-{self.backend}-{self.fault}-{self.phase}"


@dataclass(frozen=True)
class Row:
    """What a cell came to."""

    fault: str
    phase: str
    master: str
    backend: str
    outcome: str
    redone: str
    seconds: float


def seeds() -> list[int]:
    """Return the seeds that STROMBUS_FAULTS asks for: ``"3"`` is one, ``"0:3"`` are three."""
    first, _, last = os.environ.get("STROMBUS_FAULTS", "").partition(":")
    return list(range(int(first), int(last or int(first) + 1))) if first else []


def cells(seed: int) -> list[Cell]:
    """Return all cells: kills at every phase, every other fault at a phase that the seed draws."""
    draw = random.Random(f"faults {seed}")

    def cell(master: str, backend: str, fault: str, phase: str) -> Cell:
        rank = {"PARAMETERS": 0, "REQUEST": 0, "STATE": 1}.get(phase, draw.randrange(2))  # who sends such a message
        return Cell(seed, master, backend, fault, phase, rank, draw.randrange(5))

    found = []
    for backend in BACKENDS:
        engine = ["kill_engine"] if backend == "spark" else []
        found += [cell("sharing", backend, "kill", phase) for phase in MEMBER_PHASES]
        for fault in (*engine, "stop", "pause", "slow", "raise"):
            found.append(cell("sharing", backend, fault, draw.choice(MEMBER_PHASES)))
        found += [cell("sharing", backend, fault, "UPDATE") for fault in ("hang", "cut", "flip", "garbage")]
        found += [cell("sharing", backend, "damage", "checkpoint")]
        phases = [*TASK_PHASES, *(("merge", "finish") if backend == "dask" else ())]
        found += [cell("averaging", backend, "kill", phase) for phase in phases]
        for fault in (*engine, "pause", "slow", "raise"):
            found.append(cell("averaging", backend, fault, draw.choice(phases)))
        found += [cell("averaging", backend, "damage", "checkpoint")]
        if backend == "dask":
            found += [cell(master, backend, "retire", "UPDATE") for master in ("sharing", "averaging")]
        if backend == "spark":
            found += [cell(master, backend, "decommission", "UPDATE") for master in ("sharing", "averaging")]
    return found


def sample(seed: int) -> list[Cell]:
    """Return one quick cell for each master and backend."""
    draw, every = random.Random(f"sample {seed}"), cells(seed)
    places = [(master, backend) for backend in BACKENDS for master in ("sharing", "averaging")]
    return [
        draw.choice([one for one in every if (one.master, one.backend) == place and one.fault in QUICK])
        for place in places
    ]


def table(rows: list[Row]) -> list[str]:
    """Return the lines of a table."""
    names = [field.name for field in fields(Row)]
    texts = [
        names,
        *([f"{value:.1f}" if isinstance(value, float) else value for value in vars(row).values()] for row in rows),
    ]
    widths = [max(len(text[column]) for text in texts) for column in range(len(names))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in texts]
