"""DataSet and MultiDataSet: rows of features and labels, with masks where there are some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from strombus.errors import DataError

__all__ = ["Array", "Columns", "DataSet", "MultiDataSet", "from_columns"]

Array = NDArray[Any]
Columns = dict[str, Array]
"""Arrays by column name (``features``, ``labels``, ``features_mask``, ...), first axis = example."""

_NO_NUMBERS = {
    "O": "objects",
    **dict.fromkeys("UST", "texts"),
    **dict.fromkeys("Mm", "dates or times; make them numbers"),
}
"""What an array of a kind that no network takes holds."""


def _refused(array: Any, name: str) -> str:
    """Return what an array of no numbers holds, and what to do about it."""
    holds, kind = _NO_NUMBERS[array.dtype.kind], array.dtype.kind
    if kind in "UST":
        advice = (
            "classes are numbers: numpy.unique(labels, return_inverse=True) numbers them"
            if name.startswith("labels")
            else "number them, for an embedding, or make a column of ones and zeros for each"
        )
        return f"{holds}; {advice}"
    if kind != "O":
        return holds
    other = next((one for one in array.flat if not isinstance(one, int | float | np.number | np.bool_)), None)
    if isinstance(other, list | tuple | np.ndarray):
        return f"{holds}: {type(other).__name__}s, as where rows have different lengths; pad or cut them"
    return f"{holds} such as {type(other).__name__}; give numbers, as an array with a dtype of numbers"


def _as_array(value: Any, name: str) -> Array:
    """Turn a tensor, list or array into an ndarray of at least one dimension without copying."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise DataError(f"{name} must be a regular numeric array: {error}; pad or cut them") from None
    if array.ndim == 0:
        raise DataError(f"{name} must have examples along its first axis, got a single value {array!r}")
    if array.dtype.kind in _NO_NUMBERS:
        raise DataError(f"{name} must be a regular numeric array, got {_refused(array, name)}")
    return array


def _optional(value: Any, name: str) -> Array | None:
    return None if value is None else _as_array(value, name)


def _check_lengths(columns: Mapping[str, Array]) -> int:
    lengths = {name: len(array) for name, array in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"all arrays of a data set need the same number of examples, got {listed}")
    return next(iter(lengths.values()), 0)


class _Rows:
    """What both kinds share, expressed through `columns`."""

    __slots__ = ()
    kind: str

    def columns(self) -> Columns:
        """Return the arrays that are present, by column name."""
        raise NotImplementedError

    @property
    def examples(self) -> int:
        """Number of examples (rows)."""
        return len(next(iter(self.columns().values()), ()))

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, rows: slice | Sequence[int] | Array) -> Self:
        """Return the given rows: views for a slice, copies for indices."""
        taken = {name: array[rows] for name, array in self.columns().items()}
        return from_columns(self.kind, taken)  # type: ignore[return-value]


def _weighed(mask: Array | None, weights: Any) -> Array | None:
    """Return a labels mask in which each entry is times its example's (or step's) weight."""
    if weights is None:
        return mask
    given = _as_array(weights, "weights")
    if given.dtype.kind not in "fiub" or not np.isfinite(given).all() or (given < 0).any():
        raise DataError("weights must be finite numbers of at least 0, one for each example")
    given = given[:, None] if given.ndim == 1 else given
    if mask is None or len(mask) != len(given):  # which the caller refuses
        return given
    sides = max(given.ndim, mask.ndim)
    one, two = (array.reshape(array.shape + (1,) * (sides - array.ndim)) for array in (mask, given))
    try:
        return np.asarray(one * two)
    except ValueError:
        raise DataError(f"weights of shape {given.shape} do not fit a labels mask of shape {mask.shape}") from None


@dataclass(frozen=True, slots=True, eq=False, init=False)
class DataSet(_Rows):
    """Examples for a network with one input and one output (DL4J: ``DataSet``).

    Parameters
    ----------
    features : array, shape (examples, ...)
    labels : array, shape (examples, ...), optional
    features_mask : array, shape (examples, time), optional
        1 where a time step is real, 0 where it is padding.
    labels_mask : array, shape (examples, time) or that of the per-term loss, optional
        1 where a label counts in the loss, 0 where it does not; or any weight of at least 0.
    weights : array, shape (examples,) or (examples, time), optional
        How much each example counts in losses, scores and metrics: the labels mask is times this, or without one
        is this, of shape (examples, 1). The mean is over the sum of the weights.

    Raises
    ------
    DataError
        When the arrays' numbers of examples differ, or a value is no regular array.
    """

    features: Any
    labels: Any
    features_mask: Any
    labels_mask: Any

    kind = "DataSet"

    def __init__(
        self,
        features: Any,
        labels: Any = None,
        features_mask: Any = None,
        labels_mask: Any = None,
        *,
        weights: Any = None,
    ) -> None:
        object.__setattr__(self, "features", _as_array(features, "features"))
        given = {"labels": labels, "features_mask": features_mask, "labels_mask": labels_mask}
        for name, value in given.items():
            object.__setattr__(self, name, _optional(value, name))
        object.__setattr__(self, "labels_mask", _weighed(self.labels_mask, weights))
        _check_lengths(self.columns())

    def columns(self) -> Columns:
        """Return the arrays that are present, by column name."""
        names = ("features", "labels", "features_mask", "labels_mask")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def _tuple_of(values: Any, name: str) -> tuple[Array, ...]:
    if values is None:
        return ()
    items = list(values) if isinstance(values, list | tuple) else [values]
    return tuple(_as_array(item, f"{name}[{i}]") for i, item in enumerate(items))


def _masks(values: Any, arrays: tuple[Array, ...], name: str) -> tuple[Array | None, ...]:
    if values is None:
        return (None,) * len(arrays)
    items = list(values) if isinstance(values, list | tuple) else [values]
    if len(items) != len(arrays):
        raise DataError(f"{name} needs one mask (or None) for each of {len(arrays)} arrays, got {len(items)}")
    return tuple(_optional(item, f"{name}[{i}]") for i, item in enumerate(items))


@dataclass(frozen=True, slots=True, eq=False, init=False)
class MultiDataSet(_Rows):
    """Examples for a graph with several inputs and outputs (DL4J: ``MultiDataSet``).

    Parameters
    ----------
    features, labels : sequence of arrays, each of shape (examples, ...)
    features_masks, labels_masks : sequence of arrays or None, optional
        One entry for each array of `features`, of `labels`.
    weights : array, shape (examples,) or (examples, time), optional
        How much each example counts, in every output; see `DataSet`.
    """

    features: Any
    labels: Any
    features_masks: Any
    labels_masks: Any

    kind = "MultiDataSet"

    def __init__(
        self,
        features: Any,
        labels: Any = None,
        features_masks: Any = None,
        labels_masks: Any = None,
        *,
        weights: Any = None,
    ) -> None:
        inputs, outputs = _tuple_of(features, "features"), _tuple_of(labels, "labels")
        if weights is not None and not outputs:
            raise DataError("weights are of labels, and there are none")
        masks = _masks(labels_masks, outputs, "labels_masks")
        object.__setattr__(self, "features", inputs)
        object.__setattr__(self, "labels", outputs)
        object.__setattr__(self, "features_masks", _masks(features_masks, inputs, "features_masks"))
        object.__setattr__(self, "labels_masks", tuple(_weighed(mask, weights) for mask in masks))
        _check_lengths(self.columns())

    def columns(self) -> Columns:
        """Return the arrays that are present: ``features_0``, ``labels_0``, ``features_mask_0``, ..."""
        named = {
            "features": self.features,
            "labels": self.labels,
            "features_mask": self.features_masks,
            "labels_mask": self.labels_masks,
        }
        return {
            f"{name}_{i}": array
            for name, arrays in named.items()
            for i, array in enumerate(arrays)
            if array is not None
        }


def _numbered(columns: Mapping[str, Array], name: str) -> list[Array | None]:
    found = {int(key.rsplit("_", 1)[1]): array for key, array in columns.items() if key.rsplit("_", 1)[0] == name}
    return [found.get(i) for i in range(max(found, default=-1) + 1)]


def from_columns(kind: str, columns: Mapping[str, Array]) -> DataSet | MultiDataSet:
    """Build the record of `kind` from its columns; the inverse of ``columns()``."""
    if kind == "DataSet":
        return DataSet(**columns)
    features, labels = _numbered(columns, "features"), _numbered(columns, "labels")
    features_masks, labels_masks = _numbered(columns, "features_mask"), _numbered(columns, "labels_mask")
    return MultiDataSet(
        features,
        labels,
        features_masks + [None] * (len(features) - len(features_masks)),
        labels_masks + [None] * (len(labels) - len(labels_masks)),
    )
