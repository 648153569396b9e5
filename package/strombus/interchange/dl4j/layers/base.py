"""What DL4J's layers have in common: a forward pass with a mask, and parameters in the order of DL4J's vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from strombus.errors import DataError
from strombus.interchange.dl4j.dropout import read_dropout
from strombus.interchange.dl4j.fields import Fields, shown
from strombus.interchange.dl4j.losses import OutputLoss

__all__ = ["Entry", "Layer", "Signal", "masked", "pass_training"]

Signal = tuple[Tensor, Tensor | None]
"""Activations, and the mask that goes with them."""

_MOST = 2**40

_SHOWN = (
    "nin",
    "nout",
    "kernelSize",
    "stride",
    "padding",
    "dilation",
    "convolutionMode",
    "poolingType",
    "mode",
    "size",
)
"""What is printed of a layer, where its JSON has it."""


@dataclass(frozen=True)
class Entry:
    """One parameter of a layer.

    Parameters
    ----------
    key : str
        DL4J's name: W, RW, b, gamma, ...
    name : str
        The module's. Its tensor, row by row, holds the same numbers in the same order as DL4J's vector.
    shape : tuple of int
    order : {"c", "f"}
        Of DL4J's array.
    settings : mapping
        The JSON of the layer that says how it is trained.
    role : {"weight", "bias", "gain", "statistic"}
        Weights and biases are regularised as the layer says, gains are not, statistics are not trained.
    """

    key: str
    name: str
    shape: tuple[int, ...]
    order: str
    settings: Mapping[str, Any]
    role: str = "weight"


class Layer(nn.Module):
    """One of DL4J's layers.

    Parameters
    ----------
    fields : Fields
        Its configuration; what is not taken here or by the subclass is an error.

    Attributes
    ----------
    entries : list of Entry
        Its parameters in the order of DL4J's vector.
    losses : tuple of OutputLoss
        That of an output layer; in a tuple, since it is no part of what torch calls the module.
    indices : bool
        Whether it takes integers.
    """

    losses: tuple[OutputLoss, ...] = ()
    indices = False

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.place = fields.place
        self.dropout = read_dropout(fields)
        self.entries: list[Entry] = []
        self._settings = fields.values

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute the layer.

        Parameters
        ----------
        x : Tensor
            In DL4J's layout: (examples, size), (examples, size, time) or (examples, channels, height, width).
        mask : Tensor or None
            (examples, time) for sequences, (rows, 1) for rows, of four axes for images.
        examples : int
            Examples of the minibatch; `x` may have a row for each time step.
        """
        raise NotImplementedError

    def noisy(self, x: Tensor) -> Tensor:
        """Put the layer's noise on its input."""
        return x if self.dropout is None else self.dropout(x)

    def extra_repr(self) -> str:
        """Return sizes and the like as DL4J calls them, and its parameters."""
        sizes = shown(self._settings, _SHOWN)
        return ", ".join(filter(None, [sizes, *(f"{entry.key}{list(entry.shape)}" for entry in self.entries)]))

    def declare(
        self,
        name: str,
        key: str,
        shape: tuple[int, ...],
        tensor: tuple[int, ...] | None = None,
        order: str = "f",
        role: str = "weight",
    ) -> None:
        """Declare the next parameter, without memory: a file's shapes are not believed before its numbers are counted.

        Parameters
        ----------
        shape : tuple of int
            DL4J's.
        tensor : tuple of int, optional
            The module's; by default that of a row.
        """
        if math.prod(shape) > _MOST:
            raise DataError(f"{self.place}: a parameter {key} of shape {list(shape)} is more than any file holds")
        empty = torch.empty(shape[1:] if tensor is None else tensor, device="meta")
        if role == "statistic":
            self.register_buffer(name, empty)
        else:
            self.register_parameter(name, nn.Parameter(empty))
        self.entries.append(Entry(key, name, shape, order, self._settings, role))

    def declare_bias(self, fields: Fields, size: int) -> None:
        """Declare b, unless the layer has none."""
        if fields.flag("hasBias", True):
            self.declare("bias", "b", (1, size), role="bias")
        else:
            self.register_parameter("bias", None)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Set what a mask leaves out to 0."""
    if mask is None:
        return x
    if x.ndim == 3 and mask.shape == (x.shape[0], x.shape[2]):
        return x * mask.unsqueeze(1)
    if x.ndim == 2 and mask.shape in ((len(x), 1), x.shape):
        return x * mask
    if x.ndim == 2 and mask.shape == (len(x),):
        return x * mask.unsqueeze(1)
    if x.ndim == 4 and mask.ndim == 4:
        return x * mask
    raise ValueError(f"a mask of shape {tuple(mask.shape)} does not fit activations of shape {tuple(x.shape)}")


_INERT = (
    "layerName",
    "weightInit",
    "weightInitFn",
    "weightInitFnRecurrent",
    "dist",
    "distRecurrent",
    "biasInit",
    "gainInit",
    "forgetGateBiasInit",
    "cudnnAlgoMode",
    "cudnnAllowFallback",
    "cudnnFwdAlgo",
    "cudnnBwdFilterAlgo",
    "cudnnBwdDataAlgo",
    "helperAllowFallback",
)
_RECORDED = (
    "iupdater",
    "biasUpdater",
    "regularization",
    "regularizationBias",
    "gradientNormalization",
    "gradientNormalizationThreshold",
)


def pass_training(fields: Fields) -> None:
    """Take what says how a layer begins and trains; the records of its parameters keep the latter."""
    fields.ignore(*_INERT, *_RECORDED)
    fields.only_for_training("weightNoise", None, "noise on the weights while training")
    fields.only_for_training("constraints", None, "constraints on the weights after each step")
    fields.only("timeDistributedFormat", None, "put an RnnToFeedForwardPreProcessor before the layer in DL4J")
