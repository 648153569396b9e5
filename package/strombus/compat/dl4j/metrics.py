"""What all evaluation classes have of DL4J's: evaluating, merging, figures by name, reading and writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Self

import numpy as np

from strombus.errors import ConfigurationError
from strombus.evaluation.base import BaseEvaluation
from strombus.evaluation.rows import value_rows

__all__ = ["EvaluationMethods", "each", "setting", "setting_setter"]


def setting(name: str) -> Callable[[Any], Any]:
    """Return a method that returns a setting."""

    def get(self: Any) -> Any:
        return getattr(self, name)

    get.__doc__ = f"Return `{name}`."
    return get


def setting_setter(name: str) -> Callable[[Any, Any], None]:
    """Return a method that changes a setting."""

    def change(self: Any, value: Any) -> None:
        self._change(name, value)

    change.__doc__ = f"Set `{name}`; ConfigurationError for a value that cannot work, or where it comes too late."
    return change


def each(counts: Any) -> dict[int, int]:
    """Return counts, or sums of weights, as a mapping of class to count."""
    return dict(enumerate(counts.tolist()))


class EvaluationMethods(BaseEvaluation):
    """DL4J's names for what every metric of `strombus.evaluation` can do.

    A class names the core's in `_core`, and takes the core's settings by keyword besides DL4J's arguments.
    """

    _core: ClassVar[type[BaseEvaluation]]

    @classmethod
    def of(cls, core: BaseEvaluation) -> Self:
        """Return what `strombus.evaluation` made under DL4J's names, as a copy."""
        made: Any = cls(**core.settings())
        if not core.empty:
            made._merge(core)
        return made  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Make the instance that `to_dict` described; see `strombus.evaluation.BaseEvaluation`."""
        return cls.of(cls._core.from_dict(record))

    # -- counting --------------------------------------------------------------------------------

    def eval(self, labels: Any, predictions: Any, mask: Any = None, metadata: Sequence[Any] | None = None) -> None:
        """Take in a batch; see `strombus.evaluation.Metric.add`.

        Parameters
        ----------
        labels, predictions : array, first axis = example
        mask : array, optional
            1 where a row, or a time step, counts. A list in its place is taken for `metadata`, as in DL4J.
        metadata : list, optional
            Something for each row; `Evaluation` keeps it for its look-ups, the others do not need it.
        """
        if isinstance(mask, list):
            mask, metadata = None, mask
        self._take_in(_array(labels), _array(predictions), _array(mask), metadata)

    def _take_in(self, labels: Any, predictions: Any, mask: Any, metadata: Sequence[Any] | None) -> None:
        self.add(labels, predictions, mask)

    def evalTimeSeries(self, labels: Any, predictions: Any, mask: Any = None) -> None:
        """Take in sequences, shape (examples, columns, steps), mask (examples, steps); `eval` does the same."""
        self.eval(labels, predictions, mask)

    def newInstance(self) -> Self:
        """Return an instance with the same settings and no data."""
        return self.fresh()

    # -- figures by name -------------------------------------------------------------------------

    Metric: ClassVar[type[StrEnum]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        names, qualname = {name: name for name in cls.figures}, f"{cls.__qualname__}.Metric"
        cls.Metric = StrEnum("Metric", names, module=cls.__module__, qualname=qualname)  # type: ignore[misc]
        cls.Metric.__doc__ = f"Names of the figures of `{cls.__name__}` that ``getValue`` takes."

    def getValue(self, metric: str) -> float:
        """Return a figure by its name, such as ``Evaluation.Metric.F1`` or ``"F1"``."""
        return self.value(metric)

    def scoreForMetric(self, metric: str, label: int | None = None) -> float:
        """Return a figure by its name, of one output where the figure has such."""
        return self.value(metric, label)

    # -- settings --------------------------------------------------------------------------------

    getAxis = setting("axis")
    setAxis = setting_setter("axis")

    def _change(self, name: str, value: Any) -> None:
        if not self.empty and name in self.alike and value != getattr(self, name):
            raise ConfigurationError(
                f"{name} decides how rows are counted, and some are counted already: set it first, or call reset()"
            )
        made: Any = type(self)(**{**self.settings(), name: value})
        if not self.empty:
            made._merge(self)
        self.__dict__ = made.__dict__

    # -- writing and reading ---------------------------------------------------------------------

    def toJson(self) -> str:
        """Return settings and statistics as JSON, in Strombus's form; ``to_json(dl4j=True)`` is for a JVM to read."""
        return self.to_json()

    @classmethod
    def fromJson(cls, text: str, kind: type[Self] | None = None) -> Self:
        """Read what `toJson` wrote, here or in DL4J; `kind` is the class to expect, this one by default."""
        return (kind or cls).from_json(text)

    def toYaml(self) -> str:
        """Return settings and statistics as YAML; see `toJson`."""
        return self.to_yaml()

    @classmethod
    def fromYaml(cls, text: str, kind: type[Self] | None = None) -> Self:
        """Read what `toYaml` wrote; see `fromJson`."""
        return (kind or cls).from_yaml(text)

    @staticmethod
    def reshapeAndExtractNotMasked(labels: Any, predictions: Any, mask: Any, axis: int) -> tuple[Any, Any, Any] | None:
        """Return labels, predictions and mask of the rows that count, each of shape (rows, columns).

        The mask is 1 where a value counts. None where no row does.
        """
        wanted, rows, weights = value_rows(_array(labels), _array(predictions), _array(mask), axis)
        keep = weights != 0
        some = keep.any(axis=1)
        return (wanted[some], rows[some], keep[some].astype(np.float32)) if some.any() else None


def _array(value: Any) -> Any:
    """Return a tensor as an array; anything else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value
