"""Statistics as lines of JSON: how they are kept, and how they travel from a gang's members."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from strombus.errors import DataError
from strombus.stats.track import Track
from strombus.types import ClockBounds

if TYPE_CHECKING:
    from strombus.stats.training import TrainingStats

__all__ = ["FILE_NAME", "LARGEST_FILE", "pack", "unpack"]

FILE_NAME = "stats.jsonl"
LARGEST_FILE = 2**28
"""Bytes; what is kept of the longest run has a tenth of that."""

VERSION = 1

Text = Annotated[str, Field(max_length=300)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**53)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Head(_Line):
    """The first line; the bounds of clocks are null where nothing is known."""

    format: Literal["strombus-stats"]
    version: Literal[1]
    about: dict[Text, Text | int | Finite]
    clocks: dict[Text, tuple[Finite | None, Finite | None]]


class _Rows(_Line):
    """Any further line: a track, its rows column by column; null is a figure that is not finite."""

    phase: Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,63}$")]
    rank: Annotated[int, Field(ge=0, le=2**31)] | None
    host: Text
    every: Count
    count: Count
    seconds: Seconds
    longest: Seconds
    sums: dict[Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,100}$")], Finite]
    started: list[Seconds]
    durations: list[Seconds]
    figures: list[list[Finite | None]]


def pack(stats: TrainingStats) -> bytes:
    """Return all that `stats` holds."""
    head = {
        "format": "strombus-stats",
        "version": VERSION,
        "about": stats.about,
        "clocks": {host: [_or_none(one.least), _or_none(one.most)] for host, one in stats.clocks.items()},
    }
    lines = [head, *(_rows(track) for track in stats.tracks)]
    return "".join(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines).encode()


def unpack(stats: TrainingStats, data: bytes, name: str) -> None:
    """Add to `stats` what `pack` returned; DataError for anything else."""
    first, *rest = data.splitlines() or [b""]
    head = _read(_Head, first, f"{name}, line 1,")
    stats.about |= head.about
    for host, (least, most) in head.clocks.items():
        bounds = ClockBounds(-math.inf if least is None else least, math.inf if most is None else most)
        stats.note_clock(host, bounds)
    for number, line in enumerate(rest, 2):
        stats.merge_track(_track(_read(_Rows, line, f"{name}, line {number},"), f"{name}, line {number},"))


def _rows(track: Track) -> dict[str, Any]:
    columns = track.table().T.tolist()
    return {
        "phase": track.name,
        "rank": track.rank,
        "host": track.host,
        "every": track.every,
        "count": track.count,
        "seconds": track.seconds,
        "longest": track.longest,
        "sums": dict(zip(track.figures, track.sums, strict=True)),
        "started": columns[0],
        "durations": columns[1],
        "figures": [[_or_none(value) for value in column] for column in columns[2:]],
    }


def _track(rows: _Rows, where: str) -> Track:
    columns: list[Sequence[float | None]] = [rows.started, rows.durations, *rows.figures]
    kept = len(rows.started)
    if len(rows.figures) != len(rows.sums) or any(len(column) != kept for column in columns):
        _refuse(where, "its columns differ in number or length")
    if not 0 < kept <= rows.count:
        _refuse(where, f"it keeps {kept} of {rows.count} events")
    track = Track(rows.phase, rows.rank, rows.host, tuple(rows.sums))
    track.rows = array("d", np.array(columns, np.float64).T.tobytes())
    track.every, track.count = rows.every, rows.count
    track.seconds, track.longest, track.sums = rows.seconds, rows.longest, list(rows.sums.values())
    return track


L = TypeVar("L", bound=_Line)


def _read(kind: type[L], line: bytes, where: str) -> L:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first: Any = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        _refuse(where, f"{place + ': ' if place else ''}{first['msg']}")


def _refuse(where: str, why: str) -> NoReturn:
    raise DataError(f"{where} is not what TrainingStats.save of this version writes: {why}")


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
