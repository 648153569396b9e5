"""The interface of a metric, and how labels, outputs and masks become rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from strombus.errors import DataError

__all__ = ["Metric", "class_rows"]

Array = NDArray[Any]


class Metric(ABC):
    """Sufficient statistics of labels against a network's output (DL4J: ``IEvaluation``)."""

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
        """Return an instance with the same settings and no data."""

    @abstractmethod
    def stats(self) -> str:
        """Return the figures as text."""


def _one_hot(labels: Array, output: Array) -> bool:
    return labels.shape == output.shape and (output.shape[1] > 1 or np.issubdtype(labels.dtype, np.floating))


def class_rows(labels: Array, output: Array, mask: Array | None) -> tuple[NDArray[np.int64], Array]:
    """Flatten a batch to class numbers and one row of class outputs each, without masked rows.

    `output` has shape (examples, classes) or (examples, classes, steps...); `labels` the same (one-hot or
    probabilities) or without the class axis (class numbers); `mask` (examples,), (examples, 1) or the
    shape without the class axis.

    Returns
    -------
    numbers : ndarray of int64, shape (rows,)
    outputs : ndarray, shape (rows, classes)
    """
    if output.ndim == 1:
        output = output[:, None]
    classes = output.shape[1]
    shape = output.shape[:1] + output.shape[2:]
    if labels.ndim == output.ndim and _one_hot(labels, output):
        numbers = labels.argmax(axis=1) if classes > 1 else labels[:, 0]
    elif labels.shape == shape or labels.shape == (*shape[:1], 1):
        numbers = labels.reshape(shape)
    else:
        raise DataError(
            f"labels of shape {labels.shape} do not fit an output of shape {output.shape}: give class numbers "
            f"of shape {shape} or one value per class of shape {output.shape}"
        )
    rows = np.moveaxis(output, 1, -1).reshape(-1, classes)
    numbers = numbers.reshape(-1).astype(np.int64)
    if mask is not None:
        keep = _mask_rows(mask, shape)
        rows, numbers = rows[keep], numbers[keep]
    if np.isnan(rows).any():
        raise DataError(
            f"the network's output holds NaN in {int(np.isnan(rows).any(axis=1).sum())} of {len(rows)} rows"
        )
    return numbers, rows


def _mask_rows(mask: Array, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if mask.shape == (*shape[:1], 1) and len(shape) == 1:
        mask = mask[:, 0]
    if mask.shape == shape[:1] and len(shape) > 1:
        mask = np.broadcast_to(mask.reshape(-1, *[1] * (len(shape) - 1)), shape)
    if mask.shape != shape:
        raise DataError(f"a mask of shape {mask.shape} does not fit rows of shape {shape}")
    keep: NDArray[np.bool_] = mask.reshape(-1) != 0
    return keep
