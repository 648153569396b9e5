"""The interface of a metric, and what Strombus's own have besides: JSON, YAML, pictures, figures by name."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import yaml
from numpy.typing import NDArray

from strombus.documents import DocumentError, parse_json, parse_yaml, shorten
from strombus.errors import ConfigurationError, DataError
from strombus.interchange.dl4j.evaluations import read_evaluation, write_evaluation

if TYPE_CHECKING:
    from strombus.evaluation.charts import Chart

__all__ = ["Array", "BaseEvaluation", "Metric"]

Array = NDArray[Any]

LONGEST = 1 << 28
"""Characters of an evaluation as JSON or YAML; an exact ROC of a million scores has about 30 million."""


class Metric(ABC):
    """Sufficient statistics of labels against a network's output (DL4J: ``IEvaluation``).

    Attributes
    ----------
    probabilities : bool
        Whether `add` wants probabilities where the network's loss says that it gives logits; otherwise the
        output comes as the module returned it.
    """

    probabilities: bool = False

    @abstractmethod
    def add(self, labels: Array, output: Array, mask: Array | None = None) -> None:
        """Take in a batch.

        Parameters
        ----------
        labels, output : ndarray, first axis = example
        mask : ndarray, optional
            1 where a row, or a time step, counts.

        Raises
        ------
        DataError
            When shapes do not fit, or the output holds NaN.
        """

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """Add another instance's statistics to this one and return it."""

    @abstractmethod
    def fresh(self) -> Self:
        """Return an instance with the same settings and no data (DL4J: ``newInstance``)."""

    @abstractmethod
    def stats(self) -> str:
        """Return the figures as text."""


class BaseEvaluation(Metric):
    """A metric that can be written and read back, compared and drawn (DL4J: ``BaseEvaluation``).

    Attributes
    ----------
    name : str
        The ``type`` in JSON, and the row in `strombus.evaluation.evaluations`.
    figures : mapping of str to str
        DL4J's name of each figure and the method that gives it.
    alike : tuple of str
        Settings that two instances must share to be merged.
    """

    probabilities = True
    name: ClassVar[str]
    figures: ClassVar[Mapping[str, str]] = {}
    alike: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the arguments that make an instance like this one, as plain values."""

    @abstractmethod
    def statistics(self) -> dict[str, Any]:
        """Return what was counted, as plain values; nothing for an instance without data."""

    @abstractmethod
    def _load(self, statistics: Mapping[str, Any]) -> None:
        """Take over what `statistics` returned; a `DataError` says what is wrong with it."""

    @abstractmethod
    def _merge(self, other: Self) -> None:
        """Add the statistics of an instance that holds data and has the same settings."""

    @abstractmethod
    def charts(self) -> list[Chart]:
        """Return what there is to draw, the most telling first."""

    @property
    @abstractmethod
    def empty(self) -> bool:
        """Whether nothing has been counted yet."""

    def merge(self, other: Self) -> Self:
        """Add another instance's statistics to this one and return it; one without data changes nothing.

        Raises
        ------
        DataError
            When it is another metric, or counts by other settings.
        """
        if type(other) is not type(self):
            raise DataError(f"{type(self).__name__} cannot be merged with {type(other).__name__}")
        mine, theirs = self.settings(), other.settings()
        for name in self.alike:
            if mine[name] != theirs[name]:
                raise DataError(
                    f"two {type(self).__name__} with {name} = {mine[name]!r} and {theirs[name]!r} cannot be merged: "
                    "evaluate both with the same settings"
                )
        if not other.empty:
            self._merge(other)
        return self

    def fresh(self) -> Self:
        """Return an instance with the same settings and no data (DL4J: ``newInstance``)."""
        return type(self)(**self.settings())

    def reset(self) -> None:
        """Forget the data and keep the settings."""
        self.__dict__ = self.fresh().__dict__

    def value(self, metric: str, label: int | None = None) -> float:
        """Return a figure by its method's name or by DL4J's (``"MCC"``, ``"AUROC"``, ...).

        Parameters
        ----------
        label : int, optional
            One class, output or column (DL4J: ``scoreForMetric``), where the figure has such; else what the
            method gives without one.

        Raises
        ------
        ConfigurationError
            For a name that is none; lists those there are.
        """
        wanted = metric.lower().replace("_", "")
        for known, method in self.figures.items():
            if wanted in (known.lower(), method.replace("_", "")):
                return float(getattr(self, method)(*([] if label is None else [label])))
        raise ConfigurationError(
            f"{type(self).__name__} has no figure {metric!r}; known: {', '.join(self.figures) or 'none'}"
        )

    # -- writing and reading ---------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return type, settings and statistics as plain values."""
        return {"type": self.name, "settings": self.settings(), "statistics": self.statistics()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Make the instance that `to_dict` described; it can report, take in more and be merged.

        Raises
        ------
        ConfigurationError
            When type or settings are none of this library's; lists the known ones.
        DataError
            When the statistics contradict themselves.
        """
        from strombus.evaluation import evaluations

        if not isinstance(record, Mapping) or not {"type", "settings", "statistics"} >= set(record) >= {"type"}:
            raise ConfigurationError("an evaluation is written as a mapping of type, settings and statistics")
        kind = evaluations[str(record["type"])[:100]]
        if not issubclass(kind, cls):
            raise ConfigurationError(f"this is an evaluation of type {record['type']!r}, not {cls.name!r}")
        settings, statistics = record.get("settings") or {}, record.get("statistics") or {}
        if not isinstance(settings, Mapping) or not isinstance(statistics, Mapping):
            raise ConfigurationError("an evaluation's settings and statistics are mappings")
        known = inspect.signature(kind).parameters
        if unknown := sorted(set(settings) - set(known)):
            raise ConfigurationError(f"{kind.__name__} has no setting {shorten(unknown[0])}; known: {', '.join(known)}")
        made: Self = kind(**settings)
        if statistics:
            made._load(statistics)
        return made

    def to_json(self, *, dl4j: bool = False) -> str:
        """Return the evaluation as JSON: settings and statistics, so that it can be merged after reading.

        Parameters
        ----------
        dl4j : bool
            Write what DL4J's ``fromJson`` reads; it keeps no scores of an exact ROC, and no `undefined`.

        Raises
        ------
        ConfigurationError
            When DL4J's text cannot hold what was counted.
        """
        record = self.to_dict()
        return json.dumps(write_evaluation(record) if dl4j else record, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` or DL4J's ``toJson`` wrote; on `BaseEvaluation` any type, on a class that one.

        See `from_dict`. What DL4J wrote has ``undefined="exclude"``, DL4J's own rule for averages.
        """
        try:
            record = parse_json(text, LONGEST)
        except DocumentError as error:
            raise ConfigurationError(f"the evaluation is not JSON: {error}") from None
        return cls.from_dict(read_evaluation(record) if isinstance(record, dict) and "@class" in record else record)

    def to_yaml(self) -> str:
        """Return the evaluation as YAML; see `to_json`."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read what `to_yaml` wrote; see `from_dict`."""
        try:
            record = parse_yaml(text, LONGEST)
        except DocumentError as error:
            raise ConfigurationError(f"the evaluation is not YAML: {error}") from None
        return cls.from_dict(record)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        name = type(self).__name__
        if self.empty:
            return f"{name}(no data)"
        shown = list(dict.fromkeys(self.figures.values()))[:3]
        return f"{name}({', '.join(f'{figure}={getattr(self, figure)():.4f}' for figure in shown)})"

    # -- looking at it ---------------------------------------------------------------------------

    def to_html(self, path: str | PathLike[str], title: str | None = None) -> Path:
        """Write figures and charts as one page; see `strombus.evaluation.export_evaluation_html`."""
        from strombus.evaluation.page import export_evaluation_html

        return export_evaluation_html([self], path, title or type(self).__name__)

    def plot(self, ax: Any = None) -> Any:
        """Draw with matplotlib: the first chart into `ax`, or all charts into a new figure, which is returned.

        Raises
        ------
        ConfigurationError
            Without matplotlib, which is no dependency of Strombus.
        """
        from strombus.evaluation.plotting import plot_charts

        return plot_charts(self.charts(), ax)

    def _no_data(self) -> DataError:
        return DataError(f"nothing has been evaluated yet: the {type(self).__name__} has no data")
