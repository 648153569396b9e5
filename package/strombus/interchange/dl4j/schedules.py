"""DL4J's schedules: what a learning rate, a momentum or a coefficient is at an iteration and an epoch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from strombus.errors import DataError
from strombus.interchange.dl4j.fields import Fields

__all__ = ["FixedSchedule", "Schedule", "read_schedule", "schedule_names"]

Steps = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Count = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Number = Annotated[float, Field(strict=True)]


class Schedule(BaseModel):
    """A value that depends on how many iterations and epochs a network has been trained for (DL4J: ``ISchedule``)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, alias_generator=to_camel, populate_by_name=True
    )

    @abstractmethod
    def value_at(self, iteration: int, epoch: int) -> float:
        """Return the value for the step that follows `iteration` steps and `epoch` epochs."""


class FixedSchedule(Schedule):
    """The same value always."""

    value: Number

    def value_at(self, iteration: int, epoch: int) -> float:
        """Return the value."""
        return self.value


class _Counting(Schedule):
    """A schedule over iterations or over epochs."""

    schedule_type: Literal["ITERATION", "EPOCH"]

    def value_at(self, iteration: int, epoch: int) -> float:
        """Return the value after as many iterations, or epochs."""
        with np.errstate(all="ignore"):  # as Java: too large is infinite, and what is undefined is NaN
            return float(self._at(np.float64(iteration if self.schedule_type == "ITERATION" else epoch)))

    @abstractmethod
    def _at(self, position: np.float64) -> Any: ...


class ExponentialSchedule(_Counting):
    """``initial_value * gamma**i``."""

    initial_value: Number
    gamma: Number

    def _at(self, position: np.float64) -> Any:
        return self.initial_value * np.power(np.float64(self.gamma), position)


class InverseSchedule(_Counting):
    """``initial_value / (1 + gamma * i)**power``."""

    initial_value: Number
    gamma: Number
    power: Number

    def _at(self, position: np.float64) -> Any:
        return self.initial_value / np.power(1 + self.gamma * position, self.power)


class MapSchedule(_Counting):
    """The value of the largest key that is not beyond i; there is a key 0."""

    values: Mapping[Steps, Number]

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, given: Any) -> Any:
        """Take the keys for numbers, which JSON writes as texts."""
        values = given.get("values") if isinstance(given, dict) else None
        if not isinstance(values, dict):
            return given
        keys = {key: int(key) for key in values if isinstance(key, str) and key.isascii() and key.isdecimal()}
        return {**given, "values": {keys.get(key, key): value for key, value in values.items()}}

    @model_validator(mode="after")
    def _starts(self) -> Self:
        if 0 not in self.values:
            raise ValueError("values must have an entry for position 0")
        return self

    def _at(self, position: np.float64) -> Any:
        return self.values[max(key for key in self.values if key <= position)]


class PolySchedule(_Counting):
    """``initial_value * (1 + i / max_iter)**power``, 0 from `max_iter` on: as DL4J computes it, not as it says."""

    initial_value: Number
    power: Number
    max_iter: Steps

    def _at(self, position: np.float64) -> Any:
        if position >= self.max_iter:
            return 0.0
        return self.initial_value * np.power(1 + position / self.max_iter, self.power)


class SigmoidSchedule(_Counting):
    """``initial_value / (1 + exp(-gamma * (i - step_size)))``."""

    initial_value: Number
    gamma: Number
    step_size: Steps

    def _at(self, position: np.float64) -> Any:
        return self.initial_value / (1 + np.exp(-self.gamma * (position - self.step_size)))


class StepSchedule(_Counting):
    """``initial_value * decay_rate**floor(i / step)``."""

    initial_value: Number
    decay_rate: Number
    step: Number

    def _at(self, position: np.float64) -> Any:
        return self.initial_value * np.power(np.float64(self.decay_rate), np.floor(position / np.float64(self.step)))


class CycleSchedule(_Counting):
    """Up to the maximum and down again in a straight line, then below: the 1cycle policy (arXiv:1803.09820)."""

    initial_learning_rate: Number
    max_learning_rate: Number
    cycle_length: Count
    annealing_length: Steps
    annealing_decay: Number
    step_size: int = 0
    increment: Any = 0.0

    def _at(self, position: np.float64) -> Any:
        place = position % self.cycle_length
        # Java divides integers towards zero, and writes what it has derived into the file as well.
        step = int((self.cycle_length - self.annealing_length) / 2)
        slope = np.float64(self.max_learning_rate - self.initial_learning_rate) / np.float64(step)
        if place < step:
            return self.initial_learning_rate + slope * place
        if place < 2 * step:
            return self.max_learning_rate - slope * (place - step)
        annealed = self.annealing_length - (self.cycle_length - place)
        return self.initial_learning_rate * np.power(np.float64(self.annealing_decay), annealed)


class RampSchedule(Schedule):
    """Another schedule, reached in a straight line over the first `num_iter` iterations."""

    base_schedule: InstanceOf[Schedule]
    num_iter: Count

    def value_at(self, iteration: int, epoch: int) -> float:
        """Return the other schedule's value, or a part of it."""
        base = self.base_schedule.value_at(iteration, epoch)
        return base if iteration >= self.num_iter - 1 else (iteration + 1) / self.num_iter * base


_KINDS: Mapping[str, type[Schedule]] = {
    kind.__name__: kind
    for kind in (
        CycleSchedule,
        ExponentialSchedule,
        FixedSchedule,
        InverseSchedule,
        MapSchedule,
        PolySchedule,
        RampSchedule,
        SigmoidSchedule,
        StepSchedule,
    )
}


def schedule_names() -> list[str]:
    """Return the names of DL4J's schedules that are known."""
    return sorted(_KINDS)


def read_schedule(fields: Fields) -> Schedule:
    """Return the schedule that DL4J's JSON describes.

    Raises
    ------
    ConfigurationError
        For a class that is not known.
    DataError
        For values that it does not take.
    """
    kind = fields.kind("org.nd4j.linalg.schedule", _KINDS, "schedule")
    given = {name: value for name, value in fields.values.items() if name != "@class"}
    if kind is RampSchedule:
        inner = fields.child("baseSchedule")
        assert inner is not None
        given["baseSchedule"] = read_schedule(inner)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors())
        raise DataError(f"{fields.place}: a {kind.__name__} cannot be made of it: {wrong[:1000]}") from None
