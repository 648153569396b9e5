"""MLlib's vectors, matrices and labelled points as arrays and objects; known by what they can do, without Spark."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
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

__all__ = ["classified", "continuous", "dense", "numbers", "objects", "one_hot", "predict", "values"]

ROWS = 256
"""Points of one object: DL4J makes an object of each."""

Labels = NDArray[np.float64]


def predict(network: Network, given: Any) -> Any:
    """Return the network's output for a vector, or for each row of a matrix, in the form in which it came."""
    features = values(given)
    if features.ndim == 1:
        return _like(given, network.predict(features[None])[0])
    return _like(given, network.predict(features))


def _like(given: Any, output: NDArray[Any]) -> Any:
    """Return `output` as a vector or a matrix of the library that `given` is of; arrays stay arrays."""
    if not hasattr(given, "toArray"):
        return output
    wanted = 2 if hasattr(given, "numRows") else 1
    if output.ndim != wanted:
        raise DataError(
            f"the output for {'a matrix' if wanted == 2 else 'a vector'} must have {wanted} axes to be given back as "
            f"one, it has the shape {output.shape}; give predict a numpy array"
        )
    return dense(sys.modules[type(given).__module__], output)


def values(given: Any) -> NDArray[Any]:
    """Return a vector or a matrix as an array."""
    return np.asarray(given.toArray() if hasattr(given, "toArray") else given)


def dense(linalg: Any, array: NDArray[Any]) -> Any:
    """Return an array of one axis as a dense vector, one of two as a dense matrix, of a module such as MLlib's."""
    if array.ndim == 1:
        return linalg.Vectors.dense(array)
    return linalg.Matrices.dense(*array.shape, array.ravel(order="F"))


def classified(points: Any, network: Network, executor: Executor) -> Any:
    """Return labelled points as data whose labels are classes, in the form that the network's loss takes."""
    if network.classifies:
        return each_partition(points, partial(objects, _numbered, ROWS))
    source = open_source(points)
    if isinstance(source, NativeCollection):
        firsts = (point for part in source.objects() for found in executor.map(_first, [part]) for point in found)
        width = _width(firsts, network)
    else:
        points = list(points)
        width = _width(points, network)
    return each_partition(points, partial(objects, numbers if width == 1 else partial(one_hot, width), ROWS))


def continuous(points: Any) -> Any:
    """Return labelled points as data whose labels are numbers, shape (examples, 1)."""
    return each_partition(points, partial(objects, numbers, ROWS))


def _width(points: Iterable[Any], network: Network) -> int:
    """Return how many outputs the network has for the first of the points."""
    for point in points:
        return int(network.predict(values(point.features)[None]).shape[-1])
    return 1


def _first(_shared: None, points: Iterable[Any]) -> list[Any]:
    return list(points)[:1]  # to the end: PySpark throws a worker process away whose task left its partition unread


# -- points to objects --------------------------------------------------------------------------------


def objects(read_labels: Callable[[Labels], NDArray[Any]], size: int, points: Iterable[Any]) -> Iterator[DataSet]:
    """Yield objects of `size` points each, the last one short; `read_labels` says what their labels become."""
    iterator = iter(points)
    while taken := list(islice(iterator, size)):
        features = np.stack([values(point.features) for point in taken])
        yield DataSet(features, read_labels(np.array([float(point.label) for point in taken])))


def numbers(labels: Labels) -> NDArray[Any]:
    """Return labels as they are, shape (examples, 1)."""
    return labels[:, None]


def one_hot(classes: int, labels: Labels) -> NDArray[Any]:
    """Return class numbers one-hot, shape (examples, classes); DataError for what is none."""
    rows: NDArray[Any] = np.eye(classes, dtype=np.float32)[_numbered(labels, classes)]
    return rows


def _numbered(labels: Labels, classes: float = np.inf) -> NDArray[Any]:
    wrong = labels[(labels != np.floor(labels)) | (labels < 0) | (labels >= classes)]
    if wrong.size:
        wanted = "from 0 on" if classes == np.inf else f"in 0..{classes - 1}"
        raise DataError(
            f"the labels of points must be class numbers {wanted}, got {', '.join(map(str, wrong[:8]))}; "
            "fitContinuousLabeledPoint and fromContinuousLabeledPoint take any number"
        )
    return labels.astype(np.int64)
