"""From the arrays of a minibatch to the tensors that a module and its losses take."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from strombus.errors import DataError
from strombus.types import DataSet, MultiDataSet
from strombus.types.dataset import Array

__all__ = ["Masks", "Tensors", "as_inputs", "describe", "to_tensors"]

Masks = tuple[Tensor | None, ...]


class Tensors(NamedTuple):
    """A minibatch on the device, one entry for each input or output of the network."""

    features: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    features_masks: Masks
    labels_masks: Masks
    examples: int

    def slices(self, count: int) -> Iterator[Tensors]:
        """Yield up to `count` runs of rows, as even as they can be; none is empty."""
        pieces = max(1, min(count, self.examples))
        edges = [self.examples * i // pieces for i in range(pieces + 1)]
        for start, stop in pairwise(edges):
            yield Tensors(
                tuple(tensor[start:stop] for tensor in self.features),
                tuple(tensor[start:stop] for tensor in self.labels),
                tuple(None if mask is None else mask[start:stop] for mask in self.features_masks),
                tuple(None if mask is None else mask[start:stop] for mask in self.labels_masks),
                stop - start,
            )


def _from_numpy(array: Array) -> Tensor:
    """Share the array's memory where torch can: writable, native, no negative strides, a type torch computes with."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "fiub":
        raise DataError(f"features, labels and masks must be numbers or booleans, got an array of {array.dtype}")
    if kind == "u" and size > 1:
        array = array.astype(np.int64)
    elif kind == "f" and size > 8:
        array = array.astype(np.float64)
    elif not (array.flags.writeable and array.dtype.isnative and all(stride >= 0 for stride in array.strides)):
        array = array.astype(array.dtype.newbyteorder("="), order="C", copy=True)
    return torch.from_numpy(array)


def _features_to_tensor(array: Array, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Convert features: floats, bytes and booleans to `dtype`; other integers are indices and become int64."""
    tensor = _from_numpy(array)
    indices = array.dtype.kind in "iu" and array.dtype != np.uint8
    return tensor.to(device, torch.int64 if indices else dtype)


def _mask_to_tensor(array: Array | None, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """Convert a mask to `dtype`."""
    return None if array is None else _from_numpy(array).to(device, dtype)


def _labels_to_tensor(array: Array, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _from_numpy(array).to(device, dtype if array.dtype.kind == "f" else torch.int64)


def to_tensors(batch: DataSet | MultiDataSet, dtype: torch.dtype, device: torch.device) -> Tensors:
    """Convert a minibatch.

    Parameters
    ----------
    batch : DataSet or MultiDataSet
    dtype : torch.dtype
        The network's own type.
    device : torch.device

    Returns
    -------
    Tensors
        Features and labels of a floating type have `dtype`, and so have masks. Features of 8 unsigned bits
        (images) or booleans have `dtype`, other integer features are indices: int64. Integer and boolean
        labels are int64; a loss that compares numbers rather than classes casts them itself.

    Raises
    ------
    DataError
        For arrays that hold no numbers.
    """
    if isinstance(batch, DataSet):
        return Tensors(
            (_features_to_tensor(batch.features, dtype, device),),
            () if batch.labels is None else (_labels_to_tensor(batch.labels, dtype, device),),
            (_mask_to_tensor(batch.features_mask, dtype, device),),
            (_mask_to_tensor(batch.labels_mask, dtype, device),),
            batch.examples,
        )
    return Tensors(
        tuple(_features_to_tensor(array, dtype, device) for array in batch.features),
        tuple(_labels_to_tensor(array, dtype, device) for array in batch.labels),
        tuple(_mask_to_tensor(array, dtype, device) for array in batch.features_masks),
        tuple(_mask_to_tensor(array, dtype, device) for array in batch.labels_masks),
        batch.examples,
    )


def as_inputs(features: Any, masks: Any, several: bool) -> MultiDataSet:
    """Hold what a caller of `forward` or `predict` gave as a minibatch.

    That is one array or a sequence of them, or a `DataSet` or `MultiDataSet`, whose masks are taken and whose labels
    are not looked at.
    """
    if isinstance(features, DataSet | MultiDataSet):
        if masks is not None:
            raise DataError(f"the {type(features).__name__} has masks of its own; give them in it alone")
        if isinstance(features, MultiDataSet):
            return MultiDataSet(features.features, None, features.features_masks)
        return as_inputs(features.features, features.features_mask, False)
    if several and isinstance(features, list | tuple):
        return MultiDataSet(features, None, masks)
    return MultiDataSet([features], None, None if masks is None else [masks])


def describe(tensor: Tensor | None) -> str:
    """Return shape and type for an error, such as ``(64, 784) float32``."""
    return "none" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
