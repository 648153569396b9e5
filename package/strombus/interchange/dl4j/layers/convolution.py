"""Convolution, pooling, padding and upsampling of images and sequences."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from strombus.interchange.dl4j.activations import read_activation
from strombus.interchange.dl4j.fields import Fields, unread
from strombus.interchange.dl4j.layers.base import Layer, Signal, masked, pass_training
from strombus.interchange.dl4j.layers.feedforward import IMAGES, SEQUENCES, check_features
from strombus.interchange.dl4j.layers.windows import max_pool, padded, pooled_mask, read_window

__all__ = ["Convolution", "Convolution1D", "Subsampling", "Subsampling1D", "Upsampling", "Upsampling1D"]
__all__ += ["ZeroPadding", "ZeroPadding1D"]


def _check_layout(fields: Fields, axes: int) -> None:
    """Refuse layouts that are not read."""
    if axes == 2:
        fields.only("cnn2dDataFormat", "NCHW", IMAGES)
    else:
        fields.ignore("cnn2dDataFormat")
        fields.only("rnnDataFormat", "NCW", SEQUENCES)


class Convolution(Layer):
    """A convolution of images (``ConvolutionLayer``)."""

    weight: Tensor
    bias: Tensor | None
    axes = 2

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        self.inputs, outputs = fields.integer("nin", 1), fields.integer("nout", 1)
        self.activation = read_activation(fields)
        self.window = read_window(fields, self.axes)
        self.declare_bias(fields, outputs)
        kernel = (*self.window.kernel, 1)[:2]
        shape = (outputs, self.inputs, *kernel)
        self.declare("weight", "W", shape, shape[: 2 + self.axes], "c")
        _check_layout(fields, self.axes)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute (examples, channels, height, width)."""
        return self.convolve(x), pooled_mask(mask, self.window, self.place)

    def convolve(self, x: Tensor) -> Tensor:
        """Return the activations."""
        check_features(self, x, 2 + self.axes, self.inputs)
        wide = padded(self.noisy(x), self.window.pads(x.shape[2:], self.place))
        convolution = F.conv2d if self.axes == 2 else F.conv1d
        y = convolution(wide, self.weight, self.bias, self.window.stride, dilation=self.window.dilation)
        return self.activation(y)  # type: ignore[no-any-return]


class Convolution1D(Convolution):
    """A convolution of sequences (``Convolution1DLayer``)."""

    axes = 1

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute (examples, channels, time)."""
        reduced = pooled_mask(mask, self.window, self.place)
        return masked(self.convolve(x), reduced), reduced


class Subsampling(Layer):
    """Pooling of images (``SubsamplingLayer``): the largest, the mean or the p-norm of each window."""

    axes = 2

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        if self.dropout is not None:
            raise unread(fields.place, "idropout of a pooling layer", "DL4J leaves it out; remove it")
        self.kind = fields.choice("poolingType", ("MAX", "AVG", "PNORM"))
        self.window = read_window(fields, self.axes)
        if self.kind != "MAX" and set(self.window.dilation) != {1}:
            raise unread(fields.place, f"dilation of {self.kind} pooling", "set it to 1 in DL4J")
        self.whole = fields.flag("avgPoolIncludePadInDivisor", False)
        power = fields.integer("pnorm", default=0)
        self.power = power if self.kind == "PNORM" else 1
        if self.power < 1:
            raise unread(fields.place, f"pnorm {power}", "give a norm of 1 or more in DL4J")
        fields.ignore("eps")  # of the gradient at 0
        _check_layout(fields, self.axes)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute (examples, channels, height, width)."""
        return self.pool(x), pooled_mask(mask, self.window, self.place)

    def pool(self, x: Tensor) -> Tensor:
        """Return what is left of each window."""
        check_features(self, x, 2 + self.axes)
        if self.kind == "MAX":
            return max_pool(x, self.window, self.place)
        if self.kind == "AVG":
            sums = self._sums(x)
            return sums / (self._sums(torch.ones_like(x[:1, :1])) if not self.whole else self._size())
        sums = self._sums(x.abs() ** self.power)
        # no gradient where all is 0: that of the root would be infinite
        return torch.where(sums > 0, sums, 1) ** (1 / self.power) * (sums > 0)

    def _sums(self, x: Tensor) -> Tensor:
        wide = padded(x, self.window.pads(x.shape[2:], self.place))
        pool = F.avg_pool2d if self.axes == 2 else F.avg_pool1d
        return pool(wide, self.window.kernel, self.window.stride) * self._size()

    def _size(self) -> int:
        return int(torch.tensor(self.window.kernel).prod())


class Subsampling1D(Subsampling):
    """Pooling of sequences (``Subsampling1DLayer``)."""

    axes = 1

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute (examples, channels, time)."""
        reduced = pooled_mask(mask, self.window, self.place)
        return masked(self.pool(x), reduced), reduced


class ZeroPadding(Layer):
    """Zeros around images (``ZeroPaddingLayer``: top, bottom, left, right)."""

    axes = 2

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        amounts = fields.integers("padding", (2 * self.axes,))
        self.pads = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)]
        fields.only("dataFormat", "NCHW" if self.axes == 2 else "NCW", IMAGES if self.axes == 2 else SEQUENCES)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute images; what is added is masked out where there is a mask."""
        check_features(self, x, 2 + self.axes)
        return padded(self.noisy(x), self.pads), self._mask(mask)

    def _mask(self, mask: Tensor | None) -> Tensor | None:
        if mask is None or mask.ndim != (2 if self.axes == 1 else 4):
            return mask
        sizes = mask.shape[-self.axes :]
        return padded(
            mask, [(0, 0) if size == 1 and self.axes == 2 else pad for size, pad in zip(sizes, self.pads, strict=True)]
        )


class ZeroPadding1D(ZeroPadding):
    """Zeros around sequences (``ZeroPadding1DLayer``: left, right)."""

    axes = 1


class Upsampling(Layer):
    """Each pixel repeated (``Upsampling2D``: height, width)."""

    axes = 2

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        self.size = fields.integers("size", (1, 2), 1)
        if self.axes == 2 and len(self.size) == 1:
            self.size *= 2
        fields.only("format", "NCHW", IMAGES)
        fields.only("rnnDataFormat", "NCW", SEQUENCES)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute images or sequences."""
        check_features(self, x, 2 + self.axes)
        return self._repeat(self.noisy(x)), None if mask is None else self._repeat(mask, mask.ndim == 4)

    def _repeat(self, x: Tensor, broadcast: bool = False) -> Tensor:
        for axis in range(self.axes):
            place = x.ndim - self.axes + axis
            if not (broadcast and x.shape[place] == 1):
                x = x.repeat_interleave(self.size[axis], place)
        return x


class Upsampling1D(Upsampling):
    """Each time step repeated (``Upsampling1D``)."""

    axes = 1
