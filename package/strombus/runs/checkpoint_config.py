"""When checkpoints are made, and how many are kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from strombus.errors import ConfigurationError

__all__ = ["CheckpointConfig", "Interval"]

_UNITS: dict[str, tuple[Literal["steps", "epochs", "seconds"], int]] = {
    "step": ("steps", 1),
    "steps": ("steps", 1),
    "epoch": ("epochs", 1),
    "epochs": ("epochs", 1),
    "s": ("seconds", 1),
    "min": ("seconds", 60),
    "h": ("seconds", 3600),
}
_TIMES = {unit: factor for unit, (kind, factor) in _UNITS.items() if kind == "seconds"}
_EVERY = re.compile(rf"\s*(\d{{1,9}})\s*({'|'.join(_UNITS)})\s*")


@dataclass(frozen=True, slots=True)
class Interval:
    """`count` steps, epochs or seconds."""

    count: int
    unit: Literal["steps", "epochs", "seconds"]


class CheckpointConfig(BaseModel):
    """When a fit with a name writes what it can go on from.

    Parameters
    ----------
    every : str
        ``"1epoch"`` (the default), ``"200steps"``, ``"30s"``, ``"5min"``, ``"1h"``. Steps are minibatches on the
        longest worker's path. Parameter averaging writes after a round, never within one.
    keep : int
        Latest checkpoints that stay, at least 1.
    best : {"score", "accuracy"}, optional
        Keep the epoch's checkpoint with the best of these validation figures too.
    max_share : float
        Part of the training time that checkpoints may take: one that would come too soon after a costly one is put
        off. 1 never puts off.
    on_error : {"warn", "raise"}
        Whether training goes on when a checkpoint cannot be written, such as to a full disk.
    grace : str
        How long a fit that is stopped by SIGTERM or Ctrl-C may take to come to a place where a last checkpoint can be
        written, and to write it: ``"20s"``. Kubernetes kills after 30 s.

    Raises
    ------
    ConfigurationError
        For a value that cannot work, naming option and value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: str = "1epoch"
    keep: int = Field(default=3, ge=1)
    best: Literal["score", "accuracy"] | None = None
    max_share: float = Field(default=0.05, gt=0, le=1)
    on_error: Literal["warn", "raise"] = "warn"
    grace: str = "20s"

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            problem = error.errors()[0]
            option = ".".join(map(str, problem["loc"]))
            known = ", ".join(type(self).model_fields)
            if problem["type"] == "extra_forbidden":
                raise ConfigurationError(f"CheckpointConfig has no option {option!r}; known: {known}") from None
            message = problem["msg"].removeprefix("Value error, ")
            raise ConfigurationError(f"CheckpointConfig: {option} = {problem.get('input')!r}: {message}") from None

    @field_validator("every")
    @classmethod
    def _readable(cls, value: str) -> str:
        match = _EVERY.fullmatch(value)
        if match is None or int(match[1]) < 1:
            raise ValueError('wanted a number and a unit, such as "1epoch", "200steps", "30s", "5min" or "1h"')
        return value

    @field_validator("grace")
    @classmethod
    def _some_time(cls, value: str) -> str:
        match = _EVERY.fullmatch(value)
        if match is None or match[2] not in _TIMES or int(match[1]) < 1:
            raise ValueError('wanted a time, such as "20s" or "1min"')
        return value

    @property
    def grace_seconds(self) -> int:
        """`grace`, read."""
        match = _EVERY.fullmatch(self.grace)
        assert match is not None
        return int(match[1]) * _TIMES[match[2]]

    @property
    def interval(self) -> Interval:
        """`every`, read."""
        match = _EVERY.fullmatch(self.every)
        assert match is not None
        unit, factor = _UNITS[match[2]]
        return Interval(int(match[1]) * factor, unit)
