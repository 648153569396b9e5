"""How labels, outputs and masks of any rank become rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.errors import DataError
from strombus.evaluation.base import Array

__all__ = ["class_rows", "value_rows"]


def class_rows(labels: Any, output: Any, mask: Any, axis: int = 1) -> tuple[NDArray[np.int64], Array, Array]:
    """Flatten a batch to class numbers and one row of class outputs each, without masked rows.

    `output` has shape (examples, classes) or (examples, classes, steps...), with the classes along `axis`;
    `labels` the same (one-hot or probabilities) or without the class axis (class numbers); `mask`
    (examples,), (examples, 1) or the shape without the class axis. A single output column is the
    probability of class 1 of two.

    Returns
    -------
    numbers : ndarray of int64, shape (rows,)
    outputs : ndarray, shape (rows, columns)
    weights : ndarray, shape (rows,)
        Ones, of int64, unless the mask holds other values than 0 and 1: then these, as float64.

    Raises
    ------
    DataError
        When shapes do not fit, the output holds NaN, a label is no class number, or a weight is negative or infinite.
    """
    labels, output, axis = _arrays(labels, output, axis)
    columns, shape = output.shape[axis], _without(output.shape, axis)
    rows = _flat(output, axis)
    if labels.shape == output.shape and (columns > 1 or labels.dtype.kind == "f"):
        given = _flat(labels, axis)
    elif labels.shape in (shape, (*shape[:1], 1)):
        given = labels.reshape(-1, 1)
    else:
        raise DataError(
            f"labels of shape {labels.shape} do not fit an output of shape {output.shape}: give class numbers "
            f"of shape {shape} or one value per class of shape {output.shape}"
        )
    weights = np.ones(len(rows), np.int64)
    if mask is not None:
        weights = _whole_rows(_weights(mask), output.shape, axis)
        keep = weights != 0
        rows, given, weights = rows[keep], given[keep], weights[keep]
    _refuse_nan(rows, np.ones(rows.shape, bool), "the network's output holds NaN")
    return _numbers(given, max(2, columns)), rows, weights


def value_rows(labels: Any, output: Any, mask: Any, axis: int = 1) -> tuple[Array, Array, Array]:
    """Flatten a batch whose labels have a value for each output; masked values are set to 0.

    `output` has shape (examples,), (examples, columns) or (examples, columns, steps...), with the columns along
    `axis`; `labels` the same shape; `mask` (examples,), (examples, 1), the shape without the column axis, or
    that of the output: one entry for each value.

    Returns
    -------
    labels, outputs : ndarray of float64, shape (rows, columns)
    weights : ndarray, shape (rows, columns)
        0 where a value is masked and 1 where it counts, of int64, unless the mask holds other values: then these, as
        float64.

    Raises
    ------
    DataError
        When shapes do not fit, an unmasked label or output is NaN, or a weight is negative or infinite.
    """
    labels, output, axis = _arrays(labels, output, axis)
    if output.shape[axis] == 1 and labels.shape == _without(output.shape, axis):
        labels = np.expand_dims(labels, axis)
    if labels.shape != output.shape:
        raise DataError(
            f"labels of shape {labels.shape} do not fit an output of shape {output.shape}: "
            "they need one value for each output"
        )
    rows, given = _flat(output, axis).astype(np.float64), _flat(labels, axis).astype(np.float64)
    weights = np.ones(rows.shape, np.int64)
    if mask is not None:
        mask = _weights(mask)
        per_value = mask.shape == output.shape and mask.shape != _without(output.shape, axis)
        weights = _flat(mask, axis) if per_value else weights * _whole_rows(mask, output.shape, axis)[:, None]
    keep = weights != 0
    _refuse_nan(rows, keep, "the network's output holds NaN")
    _refuse_nan(given, keep, "the labels hold NaN")
    return np.where(keep, given, 0.0), np.where(keep, rows, 0.0), weights


def check_zero_or_one(labels: Array, what: str) -> None:
    """Refuse labels other than 0 and 1."""
    wrong = labels[(labels != 0) & (labels != 1)]
    if wrong.size:
        raise DataError(f"{what} needs labels of 0 and 1 for each output, got {wrong.flat[0]:g}")


def check_probabilities(values: Array, what: str) -> None:
    """Refuse values outside 0..1."""
    wrong = values[(values < 0) | (values > 1)]
    if wrong.size:
        raise DataError(
            f"{what} needs probabilities from 0 to 1, got {wrong.flat[0]:g}: end the module with a softmax or "
            "sigmoid, or give the network a loss over logits (CrossEntropyLoss, BCEWithLogitsLoss), which says so"
        )


def _arrays(labels: Any, output: Any, axis: int) -> tuple[Array, Array, int]:
    labels, output = np.asarray(labels), np.asarray(output)
    if output.ndim == 1:
        output, axis = output[:, None], 1
    axis = axis + output.ndim if axis < 0 else axis
    if not 0 < axis < output.ndim:
        raise DataError(f"an output of shape {output.shape} has no axis {axis} for its classes or columns")
    return labels, output, axis


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _flat(array: Array, axis: int) -> Array:
    return np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])


def _weights(mask: Any) -> Array:
    """Return a mask of yes and no as counts, one that holds other values as they are."""
    given = np.asarray(mask)
    keep = given != 0
    if given.dtype.kind == "b" or not (keep & (given != 1)).any():
        return np.asarray(keep, np.int64)
    weights: Array = given.astype(np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise DataError("a mask, or weights, of metrics must hold finite numbers of at least 0")
    return weights


def _whole_rows(mask: Array, shape: tuple[int, ...], axis: int) -> Array:
    rows = _without(shape, axis)
    if mask.shape in (rows[:1], (*rows[:1], 1)) and mask.shape != rows:
        mask = np.broadcast_to(mask.reshape(-1, *[1] * (len(rows) - 1)), rows)
    if mask.shape != rows:
        hint = "; a mask with an entry for each output is for EvaluationBinary, ROCBinary and RegressionEvaluation"
        raise DataError(f"a mask of shape {mask.shape} does not fit rows of shape {rows}{hint * (mask.shape == shape)}")
    flat: Array = mask.reshape(-1)
    return flat


def _numbers(labels: Array, classes: int) -> NDArray[np.int64]:
    """Turn rows of one-hot values, or single class numbers, into class numbers below `classes`."""
    if labels.dtype.kind == "f":
        _refuse_nan(labels, np.ones(labels.shape, bool), "the labels hold NaN")
    numbers = labels.argmax(axis=1) if labels.shape[1] > 1 else labels[:, 0]
    wrong = numbers[(numbers < 0) | (numbers >= classes) | (numbers != np.floor(numbers))]
    if wrong.size:
        raise DataError(f"class numbers must be integers in 0..{classes - 1}, got {wrong[0]:g}")
    return numbers.astype(np.int64)


def _refuse_nan(rows: Array, keep: NDArray[np.bool_], what: str) -> None:
    bad = int((np.isnan(rows) & keep).any(axis=1).sum()) if rows.dtype.kind == "f" else 0
    if bad:
        raise DataError(f"{what} in {bad} of {len(rows)} rows")
