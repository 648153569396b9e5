"""Spark MLlib's vectors, matrices and labelled points, as arrays and data sets and back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.compat.dl4j.points import dense, numbers, objects, one_hot, values
from strombus.errors import ConfigurationError, DataError
from strombus.types import DataSet

__all__ = ["MLLibUtil"]


class MLLibUtil:
    """Convert MLlib's vectors, matrices and labelled points; an RDD is Spark's or that of a `DaskSparkContext`.

    What is read only needs to have ``toArray()``, ``label`` and ``features``. What is made is of ``pyspark.mllib``,
    which must be installed then.
    """

    @staticmethod
    def toVector(vector: Any) -> Any:
        """Return a vector's values, shape (size,), or the dense vector of an array of one axis."""
        if hasattr(vector, "toArray"):
            return values(vector)
        array = np.asarray(vector, np.float64)
        if array.ndim > 2 or (array.ndim == 2 and 1 not in array.shape):
            raise DataError(f"a vector needs an array of one axis, got the shape {array.shape}")
        return dense(_linalg(), array.reshape(-1))

    @staticmethod
    def toMatrix(matrix: Any) -> Any:
        """Return a matrix's values, shape (rows, columns), or the dense matrix of such an array."""
        if hasattr(matrix, "toArray"):
            return values(matrix)
        array = np.asarray(matrix, np.float64)
        if array.ndim != 2:
            raise DataError(f"a matrix needs an array of two axes, got the shape {array.shape}")
        return dense(_linalg(), array)

    @staticmethod
    def toClassifierPrediction(vector: Any) -> float:
        """Return the number of the largest value, as MLlib's classifiers do."""
        return float(np.argmax(values(vector)))

    @staticmethod
    def fromLabeledPoint(*arguments: Any) -> Any:
        """Return an RDD of `DataSet` with one-hot labels.

        Parameters
        ----------
        *arguments
            As in DL4J: optionally a context, which is not needed; the RDD of points; the number of classes; and
            the points of an object (1 by default; a partition's last object is short), or whether to cache.
        """
        data, rest = _data(arguments)
        if not rest:
            raise ConfigurationError("fromLabeledPoint needs the number of classes after the points")
        classes, *more = rest
        size, cache = (1, more[0]) if more and isinstance(more[0], bool) else (int((*more, 1)[0]), False)
        if size < 1:
            raise ConfigurationError(f"an object needs at least 1 point, got {size}")
        return _cached(data.mapPartitions(partial(objects, partial(one_hot, int(classes)), size)), cache)

    @staticmethod
    def fromContinuousLabeledPoint(*arguments: Any) -> Any:
        """Return an RDD of `DataSet` of one row whose labels are numbers, shape (1, 1); see `fromLabeledPoint`."""
        data, rest = _data(arguments)
        return _cached(data.mapPartitions(partial(objects, numbers, 1)), bool(rest and rest[0]))

    @staticmethod
    def fromDataSet(*arguments: Any) -> Any:
        """Return an RDD of labelled points: of each row its features and the number of its largest label.

        A single label column holds the label itself. Arguments as for `fromContinuousLabeledPoint`.
        """
        data, rest = _data(arguments)
        _linalg()  # so that the driver says what is missing
        return _cached(data.mapPartitions(_points), bool(rest and rest[0]))

    @staticmethod
    def pointOf(writables: Collection[Any]) -> Any:
        """Return the labelled point of a row of values, or texts of them, the last of which is the label."""
        *features, label = (float(str(value)) for value in writables)
        if label < 0:
            raise DataError(f"the label, the last of the values, must be at least 0, got {label:g}")
        return _point(label, np.array(features))


def _data(arguments: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Return the RDD, which a context may precede, and what follows it."""
    for place, one in enumerate(arguments[:2]):
        if hasattr(one, "mapPartitions"):
            return one, arguments[place + 1 :]
    raise ConfigurationError(f"wanted an RDD, got {', '.join(type(one).__name__ for one in arguments) or 'nothing'}")


def _cached(rdd: Any, cache: bool) -> Any:
    return rdd.cache() if cache else rdd


def _linalg() -> Any:
    try:
        from pyspark.mllib import linalg
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"what MLLibUtil makes is of pyspark.mllib, and {error.name} is not installed: pip install strombus[spark]"
        ) from None
    return linalg


def _point(label: float, features: NDArray[Any]) -> Any:
    from pyspark.mllib.regression import LabeledPoint

    return LabeledPoint(label, dense(_linalg(), features))


def _points(objects: Iterable[DataSet]) -> Iterator[Any]:
    for item in objects:
        if item.features.ndim != 2 or item.labels is None or item.labels.ndim > 2:
            raise DataError(f"a labelled point needs features of one axis and a label, got {item.features.shape}")
        labels = item.labels.reshape(len(item), -1)
        numbers = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1)
        yield from (_point(float(number), row) for number, row in zip(numbers, item.features, strict=True))
