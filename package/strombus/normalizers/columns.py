"""The arrays of a data set one by one, with their masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.errors import DataError
from strombus.types import DataSet, MultiDataSet

__all__ = ["feature_axis", "map_arrays", "named_arrays", "real_steps"]

Array = NDArray[Any]
Rows = DataSet | MultiDataSet


def named_arrays(rows: Rows) -> Iterator[tuple[str, Array, Array | None]]:
    """Yield name (``features_0``, ``labels_0``, ...), array and mask of features and labels; one each is number 0."""
    if isinstance(rows, DataSet):
        yield "features_0", rows.features, rows.features_mask
        if rows.labels is not None:
            yield "labels_0", rows.labels, rows.labels_mask
        return
    for kind, arrays, masks in (
        ("features", rows.features, rows.features_masks),
        ("labels", rows.labels, rows.labels_masks),
    ):
        for number, (array, mask) in enumerate(zip(arrays, masks, strict=True)):
            yield f"{kind}_{number}", array, mask


def map_arrays(rows: Rows, function: Callable[[str, Array, Array | None], Array]) -> Rows:
    """Return the rows with ``function(name, array, mask)`` in place of each array of features and labels."""
    made = {name: function(name, array, mask) for name, array, mask in named_arrays(rows)}
    if isinstance(rows, DataSet):
        return DataSet(made["features_0"], made.get("labels_0"), rows.features_mask, rows.labels_mask)
    return MultiDataSet(
        [made[f"features_{number}"] for number in range(len(rows.features))],
        [made[f"labels_{number}"] for number in range(len(rows.labels))],
        rows.features_masks,
        rows.labels_masks,
    )


def feature_axis(name: str, array: Array | Sequence[int], axis: int) -> int | None:
    """Return where the features of an array, or of a shape, lie; None for one number a row.

    Raises
    ------
    DataError
        When the array has no such axis.
    """
    dimensions = array.ndim if isinstance(array, np.ndarray) else len(array)
    if dimensions == 1:
        return None
    found = axis + dimensions if axis < 0 else axis
    if not 0 < found < dimensions:
        raise DataError(f"the features of {name} are said to lie along axis {axis}, it has {dimensions} axes")
    return found


def real_steps(name: str, array: Array, mask: Array | None, axis: int | None) -> NDArray[np.bool_] | None:
    """Return which steps of a time series count, shape (examples, time); None where all do, or it is none.

    Raises
    ------
    DataError
        When the mask has another number of steps than the array.
    """
    if mask is None or axis is None or array.ndim != 3 or mask.ndim != 2:
        return None
    shape = tuple(side for at, side in enumerate(array.shape) if at != axis)
    if mask.shape == (len(array), 1):  # of whole examples, such as sample weights
        mask = np.broadcast_to(mask, shape)
    if mask.shape != shape:
        raise DataError(
            f"{name} of shape {array.shape} with its features along axis {axis} has steps {shape}, its mask is of "
            f"shape {mask.shape}; a normalizer with axis=-1 is for (examples, time, size)"
        )
    steps: NDArray[np.bool_] = mask != 0
    return steps
