"""Which columns of a table are features, labels, weights and keys, and what of a table makes no numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.data.rows import KeyedRows
from strombus.documents import shorten
from strombus.errors import ConfigurationError, DataError
from strombus.types import DataSet

__all__ = [
    "At",
    "TableColumns",
    "check_keys",
    "default_columns",
    "missing",
    "no_numbers",
    "ragged",
    "refuse_type",
    "stack_cells",
]

Array = NDArray[Any]

Name = str | int
"""Of a column; pandas numbers those of a plain array."""

At = Callable[[int], str]
"""Where a row is, for an error: of a table in pieces its number counts within the piece."""

_SPARK = (
    "pyspark.ml.feature.StringIndexer numbers them (numbers suit an embedding), OneHotEncoder makes a vector of each"
)
_ENCODING = {
    "pandas": 'frame["{0}"].astype("category").cat.codes numbers them (numbers suit an embedding), '
    'pandas.get_dummies(frame, columns=["{0}"]) makes a column for each',
    "dask": 'after frame = frame.categorize(["{0}"]), frame["{0}"].cat.codes numbers them (numbers suit an embedding) '
    "and dask.dataframe.get_dummies makes a column for each; lists become texts unless "
    'dask.config.set({{"dataframe.convert-string": False}}) comes before the frame is made',
    "spark": _SPARK,
    "spark-connect": _SPARK,
    "parquet": "number them before the files are written, or read these with pandas, Dask or Spark, number them there "
    "(.cat.codes, StringIndexer; one column for each: get_dummies, OneHotEncoder) and give that DataFrame",
}
"""How texts are encoded, for a column's name."""

_OTHER = (
    (("category", "dictionary"), "categories"),
    (("str", "text", "utf8", "char"), "texts"),
    (("time", "date", "period", "duration", "interval"), "dates or times"),
    (("decimal",), "decimals"),
    (("binary", "bytes", "blob"), "bytes"),
)
_ADVICE = {
    "dates or times": "make them numbers, such as seconds or days since a date",
    "decimals": "cast them to doubles",
}


@dataclass(frozen=True)
class TableColumns:
    """The columns that are taken of a table.

    Parameters
    ----------
    features : tuple of str or int
        Numbers, lists or vectors. Those of several columns stand one after the other in a row.
    label : tuple of str or int
        Empty where there are no labels.
    several : bool
        Whether labels have an axis of their own also where they are one column of numbers.
    weight, key : str or int, optional
    dtype : str, optional
        What features become.
    engine : str
        Whose way to encode texts an error names.
    """

    features: tuple[Name, ...]
    label: tuple[Name, ...] = ()
    several: bool = False
    weight: Name | None = None
    key: Name | None = None
    dtype: str | None = None
    engine: str = "pandas"

    @classmethod
    def of(
        cls,
        features: Name | Sequence[Name],
        label: Name | Sequence[Name] | None = None,
        weight: Name | None = None,
        key: Name | None = None,
        dtype: Any = None,
    ) -> TableColumns:
        """Take the columns as users name them; ConfigurationError where they cannot be meant so."""
        names = _names(features, "features"), () if label is None else _names(label, "label")
        if not names[0]:
            raise ConfigurationError("features needs at least one column")
        for option, name in (("weight", weight), ("key", key)):
            if name is not None and not isinstance(name, Name):
                raise ConfigurationError(f"{option} must be the name of one column, got {shorten(name)}")
        try:
            kind = None if dtype is None else np.dtype(dtype)
        except TypeError:
            raise ConfigurationError(f"dtype must be a type of numbers such as float32, got {shorten(dtype)}") from None
        if kind is not None and kind.kind not in "biuf":
            raise ConfigurationError(f"dtype must be a type of numbers such as float32, got {kind}")
        several = label is not None and not isinstance(label, Name)
        return cls(*names, several, weight, key, None if kind is None else kind.name)

    @property
    def numbers(self) -> tuple[Name, ...]:
        """The columns that must hold numbers, each once."""
        weight = () if self.weight is None else (self.weight,)
        return tuple(dict.fromkeys((*self.features, *self.label, *weight)))

    @property
    def names(self) -> tuple[Name, ...]:
        """All columns, each once."""
        return tuple(dict.fromkeys((*self.numbers, *(() if self.key is None else (self.key,)))))

    def check(self, there: Iterable[Any], what: str) -> None:
        """Raise DataError where `what` lacks a column, or has it twice; lists those it has."""
        found = list(there)
        if missing := [name for name in self.names if name not in found]:
            raise DataError(
                f"{what} has no column {', '.join(map(str, missing))}, it has {', '.join(map(str, found[:50]))}; "
                f"say which hold what: strombus.data.table(data, features=..., label=..., weight=..., key=...)"
            )
        if twice := [name for name in self.names if found.count(name) > 1]:
            raise DataError(f"{what} has several columns {twice[0]}; rename them")

    def rows(self, columns: Mapping[Any, Array], at: At) -> DataSet:
        """Make rows of columns whose first axis is the row."""
        features = self._joined(self.features, columns)
        labels = None
        if self.label:
            plain = len(self.label) == 1 and not self.several
            labels = columns[self.label[0]] if plain else self._joined(self.label, columns)
        mask = None if self.weight is None else _weights(columns[self.weight], self.weight, at)
        return DataSet(features if self.dtype is None else features.astype(self.dtype, copy=False), labels, None, mask)

    def keyed(self, columns: Mapping[Any, Array], at: At) -> KeyedRows:
        """Make rows and their keys."""
        assert self.key is not None
        return KeyedRows(check_keys(columns[self.key], self.key), self.rows(columns, at))

    @staticmethod
    def _joined(names: Sequence[Name], columns: Mapping[Any, Array]) -> Array:
        if len(names) > 1 and all(columns[name].ndim == 1 for name in names):
            # Three times as fast as to join them along the second axis.
            return np.ascontiguousarray(np.stack([columns[name] for name in names]).T)
        arrays = [columns[name] if columns[name].ndim > 1 else columns[name][:, None] for name in names]
        if len(arrays) == 1:
            return arrays[0]
        if deep := [name for name, array in zip(names, arrays, strict=True) if array.ndim > 2]:
            raise DataError(
                f"column {deep[0]} has rows of the shape {columns[deep[0]].shape[1:]}; columns that stand side by side "
                f"must hold numbers, lists of numbers or vectors"
            )
        return np.concatenate(arrays, axis=1)


def default_columns(
    features: Name | Sequence[Name], label: Name | Sequence[Name] | None, there: Iterable[Any]
) -> TableColumns:
    """Take the columns that are meant where users name none: one called ``label`` may be missing."""
    return TableColumns.of(features, None if label == "label" and label not in list(there) else label)


def _names(value: Any, what: str) -> tuple[Name, ...]:
    names = tuple(value) if isinstance(value, list | tuple) else (value,)
    if any(not isinstance(name, Name) for name in names):
        raise ConfigurationError(f"{what} must be a column's name or a list of names, got {shorten(value)}")
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{what} names a column twice: {', '.join(map(str, names))}")
    return names


def _weights(values: Array, name: Name, at: At) -> Array:
    """Return weights as a labels mask of one entry for each row."""
    weights = values if values.dtype.kind == "f" else values.astype(np.float64)
    if weights.ndim != 1:
        raise DataError(f"the weight column {name} must hold one number for each row, got the shape {values.shape[1:]}")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"the weight column {name} holds {weights[row]} at {at(row)}; a weight is a number of 0 or more"
        )
    return weights[:, None]


def check_keys(values: Any, name: Name) -> Array:
    """Return keys as an array of numbers or of strings; DataError for anything else."""
    array = np.asarray(values)
    if array.dtype == object and all(isinstance(value, str) for value in array):
        array = array.astype(str)
    if array.ndim != 1 or array.dtype.kind not in "biufU":
        kinds = sorted({type(value).__name__ for value in array.ravel()[:1000].tolist()})
        raise DataError(
            f"the key column {name} must hold numbers or strings, got {', '.join(kinds)}; make them strings"
        )
    return array


def missing(name: Name, count: int, where: str) -> DataError:
    """Return the error for values that are not there."""
    values = "a missing value at" if count == 1 else f"{count} missing values, the first at"
    return DataError(f"column {name} has {values} {where}; fill or drop what is missing first")


def ragged(name: Name, where: str, found: Any, wanted: Any) -> DataError:
    """Return the error for rows of another shape."""
    return DataError(
        f"all rows of column {name} need one shape: {where} has {found}, where the first has {wanted}; pad or cut them"
    )


def no_numbers(name: Name, holds: str, engine: str) -> DataError:
    """Return the error for a column of something else, with how to encode it."""
    kind = next((kind for words, kind in _OTHER if any(word in holds.lower() for word in words)), "")
    what = f"{kind} ({holds})" if kind else holds
    if kind in ("categories", "texts"):
        advice = _ENCODING[engine].format(name)
    else:
        advice = _ADVICE.get(kind, "numbers, booleans, lists of numbers and vectors are taken")
    return DataError(f"column {name} holds {what}, a network takes numbers; {advice}")


def refuse_type(name: Name, kind: str, engine: str) -> None:
    """Raise DataError for a type, by its name, that holds no numbers whatever its values."""
    if any(word in kind.lower() for words, _ in _OTHER for word in words):
        raise no_numbers(name, kind, engine)


def stack_cells(values: Iterable[Any], name: Name, at: At, engine: str) -> Array:
    """Make one array of a column's cells: numbers, lists, arrays or vectors."""
    cells: list[Array] = []
    for row, value in enumerate(values):
        try:
            cell = value.toArray() if hasattr(value, "toArray") else np.asarray(value)
        except ValueError:  # lists of different lengths
            raise ragged(name, at(row), "lists of different lengths", "lists of one length") from None
        if cell.dtype.kind not in "biuf":
            if None in cell.ravel().tolist():
                raise missing(name, 1, at(row))
            raise no_numbers(name, f"{type(value).__name__} {shorten(value, 40)} at {at(row)}", engine)
        if cells and cell.shape != cells[0].shape:
            raise ragged(name, at(row), cell.shape, cells[0].shape)
        cells.append(cell)
    return np.stack(cells) if cells else np.empty(0)
