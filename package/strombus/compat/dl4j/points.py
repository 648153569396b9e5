"""MLlib's vectors, matrices and labelled points as arrays; known by what they can do: Spark need not be there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.compat.dl4j.paths import each_partition
from strombus.data import NativeCollection, open_source
from strombus.errors import DataError
from strombus.executors.base import Executor
from strombus.networks import Network
from strombus.types import DataSet

__all__ = ["classified", "continuous", "predict"]

ROWS = 256
"""Points of one object: DL4J makes an object of each."""


def predict(network: Network, given: Any) -> Any:
    """Return the network's output for a vector, or for each row of a matrix, in the form in which it came."""
    features = _array(given)
    if features.ndim == 1:
        return _like(given, network.predict(features[None])[0])
    return _like(given, network.predict(features))


def _array(given: Any) -> NDArray[Any]:
    return np.asarray(given.toArray() if hasattr(given, "toArray") else given)


def _like(given: Any, output: NDArray[Any]) -> Any:
    """Return `output` as a vector or a matrix of the library that `given` is of; arrays stay arrays."""
    if not hasattr(given, "toArray"):
        return output
    library = sys.modules[type(given).__module__]
    wanted = 2 if hasattr(given, "numRows") else 1
    if output.ndim != wanted:
        raise DataError(
            f"the output for {'a matrix' if wanted == 2 else 'a vector'} must have {wanted} axes to be given back as "
            f"one, it has the shape {output.shape}; give predict a numpy array"
        )
    if wanted == 2:
        return library.Matrices.dense(*output.shape, output.ravel(order="F"))
    return library.Vectors.dense(output)


def classified(points: Any, network: Network, executor: Executor) -> Any:
    """Return labelled points as data whose labels are classes, in the form that the network's loss takes."""
    if network.classifies:
        return each_partition(points, partial(_objects, 0))
    source = open_source(points)
    if not isinstance(source, NativeCollection):
        points = list(points)
        return each_partition(points, partial(_objects, _width(points, network)))
    firsts = (point for part in source.objects() for found in executor.map(_first, [part]) for point in found)
    return each_partition(points, partial(_objects, _width(firsts, network)))


def continuous(points: Any) -> Any:
    """Return labelled points as data whose labels are numbers, shape (examples, 1)."""
    return each_partition(points, partial(_objects, 1))


def _width(points: Iterable[Any], network: Network) -> int:
    """Return how many outputs the network has for the first of the points."""
    for point in points:
        return int(network.predict(_array(point.features)[None]).shape[-1])
    return 1


def _first(_shared: None, points: Iterable[Any]) -> list[Any]:
    return list(points)[:1]  # to the end: PySpark throws a worker process away whose task left its partition unread


def _objects(width: int, points: Iterable[Any]) -> Iterator[DataSet]:
    """Yield objects of some points each; labels are class numbers for a `width` of 0, one-hot for more than 1."""
    iterator = iter(points)
    while taken := list(islice(iterator, ROWS)):
        labels = np.asarray([point.label for point in taken], np.float64)
        features = np.stack([_array(point.features) for point in taken])
        yield DataSet(features, labels[:, None] if width == 1 else _classes(labels, width))


def _classes(labels: NDArray[np.float64], width: int) -> NDArray[Any]:
    numbers = labels.astype(np.int64)
    if (numbers != labels).any() or (numbers < 0).any() or (width and (numbers >= width).any()):
        limit = f" below {width}, the network's outputs" if width else ""
        raise DataError(
            f"the labels of points must be class numbers from 0 on{limit}, got {sorted(set(labels.tolist()))[:8]}; "
            "fitContinuousLabeledPoint takes any number"
        )
    return np.eye(width, dtype=np.float32)[numbers] if width else numbers
