"""The interface of a normalizer: gather, finish, apply, take back, write down."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from importlib import import_module
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from strombus.documents import shorten
from strombus.errors import ConfigurationError, DataError
from strombus.normalizers.columns import feature_axis, map_arrays, named_arrays, real_steps
from strombus.normalizers.statistics import Statistic, feature_rows
from strombus.types import DataSet, MultiDataSet

__all__ = ["Gathered", "Normalizer", "Scaling"]

Array = NDArray[Any]
Rows = DataSet | MultiDataSet

Gathered = Mapping[str, Statistic]
"""Statistics by array: ``features_0``, ``labels_0``, ..."""


class Scaling(NamedTuple):
    """``(x - center) / scale + offset``; `center` and `scale` have one value for each feature, or one for all."""

    center: Array
    scale: Array
    offset: float = 0.0


class Normalizer(ABC):
    """Scales features, and labels on request: a transform, and a part of a network (DL4J: ``DataNormalization``).

    Parameters
    ----------
    fit_labels : bool
        Whether labels are scaled too, for regression (DL4J: ``fitLabel``). A network that holds the normalizer then
        gives outputs in the labels' own units.
    axis : int
        Where the features lie in an array, the examples being axis 0: 1 for ``(examples, size)``, ``(examples, size,
        time)`` and ``(examples, channels, height, width)``, as DL4J and torch's convolutions have it; -1 for
        ``(examples, time, size)``.
    inputs, outputs : sequence of int, optional
        Which arrays of features and of labels are scaled, for several of each; all by default. Leave out inputs that
        hold indices, and labels that are classes.

    Attributes
    ----------
    fitted : dict of str to dict of str to ndarray
        What `fit` found: by array (``features_0``, ``labels_0``, ...) and name, one float64 for each feature.

    Notes
    -----
    Steps that the mask of a time series hides do not count, and are 0 afterwards; other masks are not looked at.
    """

    name: ClassVar[str]
    statistic: ClassVar[type[Statistic] | None] = None

    def __init__(
        self,
        *,
        fit_labels: bool = False,
        axis: int = 1,
        inputs: Sequence[int] | None = None,
        outputs: Sequence[int] | None = None,
    ) -> None:
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise ConfigurationError(f"axis must be an integer other than 0, which is the examples, got {axis!r}")
        self.fit_labels = bool(fit_labels)
        self.axis = axis
        self.inputs = _numbers("inputs", inputs)
        self.outputs = _numbers("outputs", outputs)
        self.fitted: dict[str, dict[str, Array]] = {}

    # -- fitting -----------------------------------------------------------------------------------

    def fit(self, data: Any, *, backend: Any = "auto") -> Self:
        """Take the statistics of `data` in one pass, and return this normalizer.

        Parameters
        ----------
        data : anything ``Trainer.fit`` takes
            What the workers can reach they read, each a part; only the statistics come back.
        backend : str or object
            Where, as ``strombus.Trainer`` takes it; arrays in memory are looked at here.

        Raises
        ------
        EmptyDataError
            When there are no rows, or all are masked.
        DataError
            When values are NaN or infinite, or the arrays do not go together.
        """
        if self.statistic is None:
            return self
        # A job on an executor, which lives above this package.
        self.finish(import_module("strombus.normalizing").gather(self, data, backend=backend))
        return self

    def gather(self, rows: Rows) -> dict[str, Statistic]:
        """Return the statistics of the arrays that are scaled; an array without a step that counts has none."""
        found: dict[str, Statistic] = {}
        for name, array, mask in named_arrays(rows):
            if self.statistic is None or not self.scales(name):
                continue
            axis = feature_axis(name, array, self.axis)
            pieces = map(self.statistic.of, feature_rows(array, axis, real_steps(name, array, mask, axis)))
            if (whole := _merge_all(pieces)) is not None:
                found[name] = whole
        return found

    @staticmethod
    def merge(left: Gathered, right: Gathered) -> dict[str, Statistic]:
        """Merge two parts' statistics."""
        both = {name: _merge(name, left[name], right[name]) for name in left.keys() & right.keys()}
        return {**left, **right, **both}

    def finish(self, gathered: Gathered) -> None:
        """Take over the statistics of all parts."""
        fitted = {name: gathered[name].values() for name in sorted(gathered, key=_place)}
        for name, values in fitted.items():
            if not all(np.isfinite(value).all() for value in values.values()):
                raise DataError(f"{name} contains NaN or infinite values; clean the data before fitting a normalizer")
        self.fitted = fitted

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fitted values of an array."""
        return () if self.statistic is None else self.statistic.fields

    # -- applying ----------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether it can be applied: it was fitted, or needs no fitting."""
        return bool(self.fitted) or not self.fields

    def scales(self, name: str) -> bool:
        """Say whether an array (``features_0``, ``labels_0``, ...) is scaled."""
        kind, number = _place(name)
        chosen = self.inputs if kind == "features" else self.outputs
        return (kind == "features" or self.fit_labels) and (chosen is None or number in chosen)

    @abstractmethod
    def scaling(self, values: Mapping[str, Array]) -> Scaling:
        """Return how an array is scaled, from its fitted values."""

    def shaped(self, name: str, shape: Sequence[int]) -> Scaling | None:
        """Return the scaling of an array of this shape, to be broadcast over it; None where it is left alone.

        Raises
        ------
        ConfigurationError
            When nothing was fitted.
        DataError
            When it was fitted to other arrays, or another number of features.
        """
        if not self.scales(name):
            return None
        if not self.ready:
            raise ConfigurationError(
                f"the {type(self).__name__} was not fitted; call fit(data) before it is applied, or load one"
            )
        if self.fields and name not in self.fitted:
            raise DataError(
                f"the {type(self).__name__} was fitted to {', '.join(self.fitted)}, there is no {name} in it"
            )
        scaling = self.scaling(self.fitted.get(name, {}))
        if not scaling.scale.ndim:
            return scaling
        axis = feature_axis(name, shape, self.axis)
        size = 1 if axis is None else shape[axis]
        if size != len(scaling.scale):
            raise DataError(
                f"the {type(self).__name__} was fitted to {len(scaling.scale)} features of {name}, got an array of "
                f"shape {tuple(shape)} with {size} along axis {self.axis}; see its option axis"
            )
        sides = [-1 if at == axis else 1 for at in range(len(shape))] if axis is not None else [1]
        return Scaling(scaling.center.reshape(sides), scaling.scale.reshape(sides), scaling.offset)

    def __call__(self, rows: Rows, dtype: Any = None) -> Rows:
        """Return the rows with scaled arrays, which are new; the rest is shared.

        Parameters
        ----------
        rows : DataSet or MultiDataSet
        dtype : dtype, optional
            To compute in; by default that of a floating array of 4 bytes or more, float32 for shorter types,
            float64 for others.
        """
        return map_arrays(rows, lambda name, array, mask: self._scaled(name, array, mask, dtype))

    def revert(self, rows: Rows) -> Rows:
        """Return rows that were normalized in their own units (DL4J: ``revert``)."""
        return map_arrays(rows, self._reverted)

    def _scaled(self, name: str, array: Array, mask: Array | None, dtype: Any) -> Array:
        scaling = self.shaped(name, array.shape)
        if scaling is None:
            return array
        kind = np.dtype(dtype) if dtype is not None else _computed_in(array.dtype)
        made: Array = np.subtract(array, scaling.center, dtype=kind, casting="unsafe")
        made /= scaling.scale.astype(kind)
        if scaling.offset:
            made += kind.type(scaling.offset)
        return self._hidden(name, made, mask)

    def _reverted(self, name: str, array: Array, mask: Array | None) -> Array:
        scaling = self.shaped(name, array.shape)
        if scaling is None:
            return array
        kind = _computed_in(array.dtype)
        made: Array = np.subtract(array, scaling.offset, dtype=kind, casting="unsafe")
        made *= scaling.scale.astype(kind)
        made += scaling.center.astype(kind)
        return self._hidden(name, made, mask)

    def _hidden(self, name: str, made: Array, mask: Array | None) -> Array:
        axis = feature_axis(name, made, self.axis) if self.fields else None
        steps = real_steps(name, made, mask, axis)
        if steps is not None and axis is not None:
            np.moveaxis(made, axis, -1)[~steps] = 0
        return made

    # -- writing and reading -----------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """Return the arguments that make a normalizer like this one, as plain values."""
        known = inspect.signature(type(self)).parameters
        return {name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in known}

    def to_dict(self) -> dict[str, Any]:
        """Return type, options and fitted values as plain values."""
        fitted = {name: {key: value.tolist() for key, value in values.items()} for name, values in self.fitted.items()}
        return {"type": self.name, "options": self.options(), "fitted": fitted}

    @classmethod
    def from_dict(cls, record: Any) -> Normalizer:
        """Make the normalizer that `to_dict` described.

        Raises
        ------
        ConfigurationError
            For an unknown type or option; lists the known ones.
        DataError
            When the fitted values contradict themselves.
        """
        from strombus.normalizers import normalizers

        if not isinstance(record, Mapping) or not {"type", "options", "fitted"} >= set(record) >= {"type"}:
            raise ConfigurationError(
                f"a normalizer is written as a mapping of type, options and fitted, got {shorten(record)}"
            )
        kind = normalizers[str(record["type"])[:100]]
        options, fitted = record.get("options") or {}, record.get("fitted") or {}
        known = inspect.signature(kind).parameters
        unknown = [options] if not isinstance(options, Mapping) else sorted(map(str, set(options) - set(known)))
        if unknown:
            raise ConfigurationError(f"{kind.__name__} has no option {shorten(unknown)}; known: {', '.join(known)}")
        made: Normalizer = kind(**options)
        made.fitted = made._read(fitted)
        return made

    def to_json(self) -> str:
        """Return the normalizer as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def _read(self, fitted: Any) -> dict[str, dict[str, Array]]:
        if not isinstance(fitted, Mapping):
            raise DataError(f"a normalizer's fitted values are a mapping, got {shorten(fitted)}")
        return {_array_name(name): self.check(name, values) for name, values in fitted.items()}

    def check(self, name: str, values: Any) -> dict[str, Array]:
        """Return fitted values as arrays of float64 of one length, named as in `fields`; DataError for others."""
        if not isinstance(values, Mapping) or set(values) != set(self.fields):
            raise DataError(f"{name}: a {self.name} normalizer holds {', '.join(self.fields)}, got {shorten(values)}")
        try:
            arrays = {field: np.array(values[field], np.float64) for field in self.fields}
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"{name}: the values of a normalizer must be numbers") from None
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) != 1 or any(len(shape) != 1 or not shape[0] for shape in shapes):
            raise DataError(f"{name}: a normalizer has one value for each feature, got shapes {sorted(shapes)}")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise DataError(f"{name}: the values of a normalizer must be finite")
        return arrays

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        given = [f"{k}={v!r}" for k, v in self.options().items() if v != defaults[k].default]
        return f"{type(self).__name__}({', '.join(given)}){self._found() if self.ready else ' (not fitted)'}"

    def _found(self) -> str:
        """Return the fitted values, of which only the first and last are written out."""
        with np.printoptions(precision=4, threshold=6, edgeitems=2, suppress=True):
            arrays = (", ".join(f"{key} {value}" for key, value in one.items()) for one in self.fitted.values())
            return "".join(f", {name}: {text}" for name, text in zip(self.fitted, arrays, strict=True))

    def fitted_to(self, field: str) -> Array:
        """Return what was fitted to the only array of features.

        Raises
        ------
        ConfigurationError
            When nothing was fitted, or to several arrays.
        """
        names = [name for name in self.fitted if name.startswith("features_")]
        if len(names) != 1:
            was = "was not fitted" if not names else f"was fitted to {', '.join(names)}; take fitted[name]"
            raise ConfigurationError(f"{field} is that of one array of features, the {type(self).__name__} {was}")
        return self.fitted[names[0]][field]


def _merge(name: str, left: Any, right: Any) -> Any:
    if left.features != right.features:
        raise DataError(f"{name} has {left.features} features in one part of the data and {right.features} in another")
    return left.merge(right)


def _merge_all(statistics: Iterator[Statistic]) -> Statistic | None:
    first = next(statistics, None)
    return None if first is None else reduce(lambda left, right: left.merge(right), statistics, first)


def _numbers(option: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in numbers):
        raise ConfigurationError(f"{option} must be numbers of arrays, counted from 0, got {shorten(value)}")
    return numbers


def _place(name: str) -> tuple[str, int]:
    kind, number = name.rsplit("_", 1)
    return kind, int(number)


def _array_name(name: Any) -> str:
    kind, _, number = str(name).rpartition("_")
    if kind not in ("features", "labels") or not (number.isascii() and number.isdigit() and len(number) < 6):
        raise DataError(f"a normalizer's arrays are called features_0, labels_0 and so on, got {shorten(name)}")
    return str(name)


def _computed_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "f":
        return dtype.newbyteorder("=") if dtype.itemsize >= 4 else np.dtype(np.float32)
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)
