"""How DL4J trains each of its parameters, read from a layer's JSON: updater, weight decay, gradient normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strombus.errors import DataError
from strombus.interchange.dl4j.fields import Fields
from strombus.interchange.dl4j.records import ParameterRecord, read_penalties
from strombus.interchange.dl4j.schedules import FixedSchedule, Schedule, read_schedule

__all__ = ["NORMALIZATIONS", "Training", "Updater", "read_trainings"]

_MOMENTS = {"beta1": "beta1", "beta2": "beta2", "epsilon": "eps"}
_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "AMSGrad": {"learningRate": "lr", **_MOMENTS},
    "AdaDelta": {"rho": "rho", "epsilon": "eps"},
    "AdaGrad": {"learningRate": "lr", "epsilon": "eps"},
    "AdaMax": {"learningRate": "lr", **_MOMENTS},
    "Adam": {"learningRate": "lr", **_MOMENTS},
    "Nadam": {"learningRate": "lr", **_MOMENTS},
    "Nesterovs": {"learningRate": "lr", "momentum": "momentum"},
    "NoOp": {},
    "RmsProp": {"learningRate": "lr", "rmsDecay": "alpha", "epsilon": "eps"},
    "Sgd": {"learningRate": "lr"},
}
"""What each updater takes: DL4J's name and torch's."""

_SCHEDULES = {"learningRate": ("learningRateSchedule",), "momentum": ("momentumISchedule", "momentumSchedule")}
_BELOW_ONE = ("alpha", "beta1", "beta2", "rho")
_ONE = FixedSchedule(value=1.0)

NORMALIZATIONS = (
    "None",
    "RenormalizeL2PerLayer",
    "RenormalizeL2PerParamType",
    "ClipElementWiseAbsoluteValue",
    "ClipL2PerLayer",
    "ClipL2PerParamType",
)
"""DL4J's ``GradientNormalization``."""


@dataclass(frozen=True)
class Updater:
    """An updater's rule and settings.

    Parameters
    ----------
    rule : str
        DL4J's name.
    settings : mapping of str to Schedule
        By torch's names; ``lr`` is 1 for rules without a learning rate.
    values : mapping
        The JSON itself; two updaters are the same to DL4J when nothing in it differs.
    """

    rule: str
    settings: Mapping[str, Schedule]
    values: Mapping[str, Any]

    def schedules(self) -> dict[str, Schedule]:
        """Return the settings that change."""
        return {name: one for name, one in self.settings.items() if not isinstance(one, FixedSchedule)}


_NOTHING = Updater("NoOp", {"lr": _ONE}, {"@class": "org.nd4j.linalg.learning.config.NoOp"})
"""Of what no gradient is for: the statistics of batch normalisation."""


@dataclass(frozen=True)
class Training:
    """How one of DL4J's parameters is trained, apart from L1 and L2.

    Parameters
    ----------
    layer, variable : str
        DL4J's names: "0" and "W" of "0_W".
    updater : Updater
    weight_decay : float
        What the parameter is decayed by in each step, times the learning rate if `decay_times_lr`.
    decay_times_lr : bool
    normalization : str
        One of `NORMALIZATIONS`.
    threshold : float
        What a norm or a value is clipped to.
    """

    layer: str
    variable: str
    updater: Updater
    weight_decay: float = 0.0
    decay_times_lr: bool = False
    normalization: str = "None"
    threshold: float = 1.0

    @property
    def name(self) -> str:
        """DL4J's name in the whole network."""
        return f"{self.layer}_{self.variable}"


def read_trainings(records: Sequence[ParameterRecord], name: str) -> tuple[Training, ...]:
    """Return how DL4J trains each parameter.

    Parameters
    ----------
    records : sequence of ParameterRecord
    name : str
        The file, for errors.

    Raises
    ------
    ConfigurationError
        For an updater, a schedule or an option that is not known; names its place.
    DataError
        For values that they do not take.
    """
    return tuple(_read(record, f"{name}, layer {record.layer}") for record in records)


def _read(record: ParameterRecord, place: str) -> Training:
    if not record.trainable:
        return Training(record.layer, record.key, _NOTHING)
    layer = Fields(record.settings, place)
    threshold = 1.0
    normalization = layer.choice("gradientNormalization", NORMALIZATIONS, "None")
    if normalization.startswith("Clip"):
        threshold = layer.number("gradientNormalizationThreshold", 1.0)
    penalties = read_penalties(record, place)
    return Training(
        record.layer,
        record.key,
        _updater(Fields(record.updater, f"{place}, updater of {record.key}")),
        penalties.decay,
        penalties.decay_by_rate,
        normalization,
        threshold,
    )


def _updater(fields: Fields) -> Updater:
    settings = fields.kind("org.nd4j.linalg.learning.config", _SETTINGS, "updater")
    rule = fields.values["@class"].rpartition(".")[2]
    found = {"lr": _ONE, **{mine: _setting(fields, its, mine) for its, mine in settings.items()}}
    fields.done()
    return Updater(rule, found, fields.values)


def _setting(fields: Fields, its: str, mine: str) -> Schedule:
    schedules = [fields.child(name, None) for name in _SCHEDULES.get(its, ())]
    given = [one for one in schedules if one is not None]
    if given:
        fields.ignore(its)  # NaN, or what was there before
        return read_schedule(given[0])
    value = fields.number(its)
    if mine in _BELOW_ONE and not 0 <= value < 1:
        raise DataError(f"{fields.place}: {its} must be at least 0 and below 1, got {value}")
    return FixedSchedule(value=value)
