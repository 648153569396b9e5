"""Where each parameter of an imported network stands in DL4J's vector, and how DL4J trains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from strombus.documents import shorten
from strombus.errors import DataError
from strombus.interchange.dl4j.fields import Fields, Options

__all__ = ["Origin", "ParameterRecord", "Penalties", "read_penalties"]


@dataclass(frozen=True)
class ParameterRecord:
    """One parameter.

    Parameters
    ----------
    layer : str
        What DL4J calls its layer in names of parameters: the number, or the vertex's name.
    key : str
        DL4J's name within the layer: W, RW, b, gamma, beta, mean, log10stdev, fW, ...
    name : str
        The module's parameter or buffer, such as ``layer0.weight``. Row by row it holds the numbers of DL4J's
        vector from `offset` on, in the same order.
    shape : tuple of int
        DL4J's.
    order : {"c", "f"}
        In which DL4J's array lies in its vector.
    offset, size : int
        Place in DL4J's vector.
    role : {"weight", "bias", "gain", "statistic"}
        Statistics are not trained: DL4J counts them as parameters with the updater NoOp.
    settings : mapping
        The JSON of the layer: iupdater, biasUpdater, regularization, gradientNormalization, ...
    """

    layer: str
    key: str
    name: str
    shape: tuple[int, ...]
    order: str
    offset: int
    size: int
    role: str
    settings: Mapping[str, Any]

    @property
    def table_key(self) -> str:
        """Name in DL4J's ``paramTable()``, such as ``0_W``."""
        return f"{self.layer}_{self.key}"

    @property
    def trainable(self) -> bool:
        """Whether training changes it by its gradient."""
        return self.role != "statistic"

    @property
    def updater(self) -> Mapping[str, Any] | None:
        """The JSON of its updater; None for statistics, and where the layer has none."""
        if not self.trainable:
            return None
        bias = self.settings.get("biasUpdater") if self.role == "bias" else None
        found: Mapping[str, Any] | None = bias or self.settings.get("iupdater")
        return found


@dataclass(frozen=True)
class Penalties:
    """L1, L2 and weight decay of one parameter; `decay_by_rate` multiplies the decay with the learning rate."""

    l1: float = 0.0
    l2: float = 0.0
    decay: float = 0.0
    decay_by_rate: bool = True


@dataclass
class Origin:
    """What an imported network was read from, so that it can be written back.

    Parameters
    ----------
    configuration : str
        ``configuration.json`` as it was.
    records : tuple of ParameterRecord
        In the order of DL4J's vector.
    updater_state : bytes or None
        ``updaterState.bin`` as it was, as long as no optimizer has taken it over.
    entries : dict
        What else the zip had, by name: a normalizer, say.
    training : bool
        Whether the network was read to be trained.
    """

    configuration: str
    records: tuple[ParameterRecord, ...]
    updater_state: bytes | None = None
    entries: dict[str, bytes] = field(default_factory=dict)
    training: bool = True


_PACKAGE = "org.nd4j.linalg.learning.regularization"
_KINDS = {"L1Regularization": "l1", "L2Regularization": "l2", "WeightDecay": "coeff"}


def read_penalties(record: ParameterRecord, place: str, training: bool = True) -> Penalties:
    """Read a parameter's regularisation.

    Raises
    ------
    ConfigurationError
        For one that changes with time, or is not known.
    DataError
        For what is no list of them.
    """
    name = {"weight": "regularization", "bias": "regularizationBias"}.get(record.role)
    listed = record.settings.get(name) if name else None
    if not isinstance(listed, list | None):
        raise DataError(f"{place}: {name} must be a list, got {shorten(listed)}")
    found: dict[str, Any] = {"l1": 0.0, "l2": 0.0, "decay": 0.0}
    for value in listed or []:
        fields = Fields(value, f"{place}, {name}", Options(training))
        key = fields.kind(_PACKAGE, _KINDS, "regularisation")
        amount = _fixed(fields, key)
        found["decay" if key == "coeff" else key] += amount
        if key == "coeff":
            found["decay_by_rate"] = fields.flag("applyLR", True)
        fields.done()
    return Penalties(**found)


def _fixed(fields: Fields, key: str) -> float:
    if isinstance(fields.values.get(key), int | float):
        return fields.number(key)
    schedule = fields.child(key)
    assert schedule is not None
    if schedule.text("@class") != "org.nd4j.linalg.schedule.FixedSchedule":
        raise fields.untrained(f"a {key} that changes with time ({schedule.values['@class']})")
    return schedule.number("value")
