"""Embedding layers: a row of weights for an index."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from strombus.interchange.dl4j.activations import read_activation
from strombus.interchange.dl4j.fields import Fields, unread
from strombus.interchange.dl4j.layers.base import Layer, Signal, masked, pass_training
from strombus.interchange.dl4j.layers.feedforward import SEQUENCES

__all__ = ["Embedding", "EmbeddingSequence"]


class Embedding(Layer):
    """``activation(W[index] + b)`` (``EmbeddingLayer``)."""

    weight: Tensor
    bias: Tensor | None
    indices = True

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        if self.dropout is not None:
            raise unread(fields.place, "idropout of an embedding", "DL4J refuses it as well")
        self.inputs, outputs = fields.integer("nin", 1), fields.integer("nout", 1)
        self.activation = read_activation(fields)
        self.declare("weight", "W", (self.inputs, outputs), (outputs, self.inputs))
        self.declare_bias(fields, outputs)

    def rows(self, x: Tensor) -> Tensor:
        """Return the row of each index, on a new last axis."""
        if x.numel() and not 0 <= int(x.min()) <= int(x.max()) < self.inputs:
            raise ValueError(
                f"{self.place} takes indices of 0 to {self.inputs - 1}, got {int(x.min())} to {int(x.max())}"
            )
        found = F.embedding(x.long(), self.weight.t())
        return found if self.bias is None else found + self.bias

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute indices (examples, 1) or (examples,)."""
        if x.ndim > 2 or (x.ndim == 2 and x.shape[1] != 1):
            raise ValueError(f"{self.place} takes one index for each example, got {tuple(x.shape)}")
        return masked(self.activation(self.rows(x.reshape(-1))), mask), mask


class EmbeddingSequence(Embedding):
    """The same for each step of a sequence (``EmbeddingSequenceLayer``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        length = fields.integer("inputLength", default=1)
        self.length = None if fields.flag("inferInputLength", False) else length
        fields.only("outputFormat", "NCW", SEQUENCES)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute indices (examples, time) or (examples, 1, time)."""
        x = x.squeeze(1) if x.ndim == 3 and x.shape[1] == 1 else x
        if x.ndim != 2 or self.length not in (None, x.shape[1]):
            length = "time" if self.length is None else self.length
            raise ValueError(f"{self.place} takes indices (examples, {length}), got {tuple(x.shape)}")
        y = self.rows(x)
        y = self.activation(y.flatten(0, 1)).reshape(y.shape).transpose(1, 2)
        return masked(y, mask), mask
