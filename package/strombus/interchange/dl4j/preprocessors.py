"""What DL4J puts between layers: rows, sequences and images made of one another."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from strombus.documents import shorten
from strombus.errors import DataError
from strombus.interchange.dl4j.fields import Fields
from strombus.interchange.dl4j.layers import Signal
from strombus.interchange.dl4j.layers.feedforward import IMAGES, SEQUENCES

__all__ = ["read_preprocessor"]

PACKAGE = "org.deeplearning4j.nn.conf.preprocessor"


class Reshape(nn.Module):
    """Base: activations and mask in another shape; the rows of a sequence are ordered by time, then example."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.place = fields.place
        fields.only("rnnDataFormat", "NCW", SEQUENCES)
        fields.only("format", "NCHW", IMAGES)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Return both in their new shapes."""
        raise NotImplementedError


class OfImages(Reshape):
    """Base: knows channels, height and width."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        height, width = fields.integer("inputHeight", 1), fields.integer("inputWidth", 1)
        self.shape = (fields.integer("numChannels", 1), height, width)

    def check(self, x: Tensor) -> None:
        """Make sure that images have the declared shape."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"{self.place} takes images of shape {self.shape}, got {tuple(x.shape)}")


class ImagesToRows(OfImages):
    """``CnnToFeedForwardPreProcessor``."""

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Lay each image out as a row; rows stay."""
        if x.ndim == 2:
            return x, mask
        self.check(x)
        if mask is not None and mask.ndim == 4:
            if mask.shape[2:] != (1, 1):
                raise ValueError(f"{self.place}: a mask over pixels cannot go on to rows")
            mask = mask.flatten(1)
        return x.flatten(1), mask


class RowsToImages(OfImages):
    """``FeedForwardToCnnPreProcessor``."""

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Make an image of each row; images stay."""
        if x.ndim == 4:
            return x, mask
        if mask is not None and mask.ndim <= 2:
            mask = mask.reshape(len(mask), -1, 1, 1)
        return x.reshape(len(x), *self.shape), mask


class SequencesToRows(Reshape):
    """``RnnToFeedForwardPreProcessor``."""

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Make a row of each time step."""
        if x.ndim != 3:
            raise ValueError(f"{self.place} takes sequences (examples, size, time), got {tuple(x.shape)}")
        return x.permute(2, 0, 1).flatten(0, 1), None if mask is None else mask.t().reshape(-1, 1)


class RowsToSequences(Reshape):
    """``FeedForwardToRnnPreProcessor``."""

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Make sequences of the rows of all time steps."""
        if x.ndim != 2 or len(x) % examples:
            raise ValueError(f"{self.place} takes rows for {examples} examples, got {tuple(x.shape)}")
        steps = x.reshape(-1, examples, x.shape[1]).permute(1, 2, 0)
        return steps, None if mask is None else mask.reshape(-1, examples).t()


class SequencesToImages(OfImages):
    """``RnnToCnnPreProcessor``."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        fields.ignore("product")

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Make an image of each time step."""
        if x.ndim != 3:
            raise ValueError(f"{self.place} takes sequences (examples, size, time), got {tuple(x.shape)}")
        images = x.permute(2, 0, 1).reshape(-1, *self.shape)
        return images, None if mask is None else mask.t().reshape(-1, 1, 1, 1)


class ImagesToSequences(OfImages):
    """``CnnToRnnPreProcessor``."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        fields.ignore("product")

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Make sequences of the images of all time steps."""
        self.check(x)
        if len(x) % examples:
            raise ValueError(f"{self.place} takes images for {examples} examples, got {len(x)}")
        steps = x.reshape(-1, examples, x[0].numel()).permute(1, 2, 0)
        return steps, None if mask is None else mask.reshape(-1, examples).t()


class Chain(nn.Module):
    """One after another (``ComposableInputPreProcessor``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        parts = fields.take("inputPreProcessors")
        if not isinstance(parts, list):
            raise DataError(f"{fields.place}: inputPreProcessors must be a list, got {shorten(parts)}")
        self.parts = nn.ModuleList(read_preprocessor(fields.at(part, f"part {i}")) for i, part in enumerate(parts))

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> tuple[Tensor, Tensor | None]:
        """Run all parts."""
        for part in self.parts:
            x, mask = part(x, mask, examples)
        return x, mask


_KNOWN: dict[str, Callable[[Fields], nn.Module]] = {
    "CnnToFeedForwardPreProcessor": ImagesToRows,
    "CnnToRnnPreProcessor": ImagesToSequences,
    "ComposableInputPreProcessor": Chain,
    "FeedForwardToCnnPreProcessor": RowsToImages,
    "FeedForwardToRnnPreProcessor": RowsToSequences,
    "RnnToCnnPreProcessor": SequencesToImages,
    "RnnToFeedForwardPreProcessor": SequencesToRows,
}


def read_preprocessor(fields: Fields) -> nn.Module:
    """Read one preprocessor, a module called as ``module(x, mask, examples)``."""
    made = fields.kind(PACKAGE, _KNOWN, "preprocessor")(fields)
    fields.done()
    return made
