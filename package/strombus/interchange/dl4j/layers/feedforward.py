"""Dense, output, loss, activation and dropout layers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from strombus.interchange.dl4j.activations import along_channels, read_activation
from strombus.interchange.dl4j.fields import Fields
from strombus.interchange.dl4j.layers.base import Layer, Signal, masked, pass_training
from strombus.interchange.dl4j.losses import read_loss

__all__ = ["ActivationOnly", "Dense", "DropoutOnly", "LossOnly", "Output", "RnnOutput", "check_features"]

SEQUENCES = "sequences are read as [examples, size, time] alone; convert the layer to NCW in DL4J"
IMAGES = "images are read as [examples, channels, height, width] alone; convert the layer to NCHW in DL4J"


def check_features(layer: Layer, x: Tensor, axes: int, wanted: int | None = None) -> None:
    """Make sure that a layer's input has so many axes, and so many features on axis 1."""
    if x.ndim != axes:
        raise ValueError(f"{layer.place} takes arrays of {axes} axes, got {x.ndim}")
    if wanted is not None and x.shape[1] != wanted:
        raise ValueError(f"{layer.place} takes {wanted} features, got {x.shape[1]}")


class Dense(Layer):
    """``activation(x W + b)`` of rows (``DenseLayer``); the weights lie as in ``nn.Linear``."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        self.inputs, self.outputs = fields.integer("nin", 1), fields.integer("nout", 1)
        self.activation = read_activation(fields)
        self.declare("weight", "W", (self.inputs, self.outputs), (self.outputs, self.inputs))
        self.declare_bias(fields, self.outputs)
        fields.only("hasLayerNorm", False, "layer normalisation is not part of what can be imported")

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute rows (rows, inputs)."""
        check_features(self, x, 2, self.inputs)
        y = self.activation(F.linear(self.noisy(x), self.weight, self.bias))
        return masked(y, mask), mask


class Output(Dense):
    """A dense layer with a loss (``OutputLayer``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.losses = (read_loss(fields, self.activation),)


class RnnOutput(Dense):
    """A dense layer with a loss for each time step (``RnnOutputLayer``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        fields.only("rnnDataFormat", "NCW", SEQUENCES)
        self.losses = (read_loss(fields, self.activation),)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute sequences (examples, inputs, time)."""
        check_features(self, x, 3, self.inputs)
        y = F.linear(self.noisy(x).transpose(1, 2), self.weight, self.bias).transpose(1, 2)
        return masked(along_channels(self.activation, y), mask), mask


class LossOnly(Layer):
    """An activation and a loss (``LossLayer``, ``RnnLossLayer``, ``CnnLossLayer``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        fields.ignore("nin", "nout", "hasBias")
        fields.only("rnnDataFormat", "NCW", SEQUENCES)
        fields.only("format", "NCHW", IMAGES)
        self.activation = read_activation(fields)
        self.losses = (read_loss(fields, self.activation),)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute rows, sequences or images."""
        return masked(along_channels(self.activation, self.noisy(x)), mask), mask


class ActivationOnly(Layer):
    """An activation (``ActivationLayer``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        self.activation = read_activation(fields)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute anything."""
        return self.activation(self.noisy(x)), mask


class DropoutOnly(Layer):
    """Noise while training, nothing otherwise (``DropoutLayer``, whose activation DL4J does not compute)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        fields.ignore("nin", "nout", "activationFn")

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute anything."""
        return masked(self.noisy(x), mask), mask
