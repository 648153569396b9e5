"""What slides over images and sequences: padding in DL4J's modes, and what becomes of a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from strombus.interchange.dl4j.fields import Fields

__all__ = ["Window", "max_pool", "padded", "pooled_mask", "read_window"]


@dataclass(frozen=True)
class Window:
    """Kernel, stride, padding and dilation: a number for each of the last axes.

    Parameters
    ----------
    mode : {"Truncate", "Strict", "Same"}
        Truncate leaves a remainder out, Strict refuses it, Same pads so that a stride of 1 keeps the size.
    """

    mode: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def pads(self, sizes: Sequence[int], place: str) -> list[tuple[int, int]]:
        """Return what is added before and behind axes of these sizes."""
        extents = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(self.kernel, self.dilation, strict=True)]
        if self.mode == "Same":
            return [_same(*row) for row in zip(sizes, extents, self.stride, strict=True)]
        for size, extent, stride, padding in zip(sizes, extents, self.stride, self.padding, strict=True):
            if size + 2 * padding < extent or (self.mode == "Strict" and (size + 2 * padding - extent) % stride):
                raise ValueError(
                    f"{place}: a window of {extent} in steps of {stride} does not fit an axis of {size} "
                    f"padded by {padding} in mode {self.mode}"
                )
        return [(padding, padding) for padding in self.padding]

    def without(self, axes: Sequence[int]) -> Window:
        """Return a window that does nothing along some axes."""

        def kept(values: tuple[int, ...], nothing: int) -> tuple[int, ...]:
            return tuple(nothing if axis in axes else value for axis, value in enumerate(values))

        return Window(
            self.mode, kept(self.kernel, 1), kept(self.stride, 1), kept(self.padding, 0), kept(self.dilation, 1)
        )


def _same(size: int, extent: int, stride: int) -> tuple[int, int]:
    total = max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
    return total // 2, total - total // 2


def read_window(fields: Fields, axes: int) -> Window:
    """Read a window; that of a sequence may have a second axis of 1 in DL4J's file, which is left out."""
    lengths = (2,) if axes == 2 else (1, 2)
    mode = fields.choice("convolutionMode", ("Truncate", "Same", "Strict"), "Truncate")
    kernel = fields.integers("kernelSize", lengths, 1)
    stride = fields.integers("stride", lengths, 1, (1,) * axes)
    padding = fields.integers("padding", lengths, 0, (0,) * axes)
    dilation = fields.integers("dilation", lengths, 1, (1,) * axes)
    return Window(mode, kernel[:axes], stride[:axes], padding[:axes], dilation[:axes])


def padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Add to the last axes of an array."""
    flat = [amount for pair in reversed(pads) for amount in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def max_pool(x: Tensor, window: Window, place: str) -> Tensor:
    """Return the largest value in each window; padding never is."""
    axes = len(window.kernel)
    wide = padded(x, window.pads(x.shape[-axes:], place), -math.inf)
    if axes == 1:
        return F.max_pool1d(wide, window.kernel, window.stride, dilation=window.dilation)
    return F.max_pool2d(wide, window.kernel, window.stride, dilation=window.dilation)


def pooled_mask(mask: Tensor | None, window: Window, place: str) -> Tensor | None:
    """Say of each step or pixel that comes out whether one that it was made of counts."""
    if mask is None or (window.mode == "Same" and set(window.stride) == {1}):
        return mask
    if len(window.kernel) == 1:
        if mask.ndim != 2:
            raise ValueError(f"{place} takes masks (examples, time), got {tuple(mask.shape)}")
        return max_pool(mask.unsqueeze(1), window, place).squeeze(1)
    if mask.ndim != 4:
        raise ValueError(f"{place} takes masks (examples, 1, height or 1, width or 1), got {tuple(mask.shape)}")
    flat = [axis for axis in (0, 1) if mask.shape[2 + axis] == 1]
    return mask if len(flat) == 2 else max_pool(mask, window.without(flat), place)
