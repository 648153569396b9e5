"""The vertices of DL4J's graphs that are no layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from strombus.errors import DataError
from strombus.interchange.dl4j.fields import Fields, shown, unread
from strombus.interchange.dl4j.layers import Signal
from strombus.interchange.dl4j.layers.recurrent import last_steps
from strombus.interchange.dl4j.preprocessors import read_preprocessor

__all__ = ["Vertex", "read_vertex"]

PACKAGE = "org.deeplearning4j.nn.conf.graph"


class Vertex(nn.Module):
    """A vertex; the mask of several inputs is there where one of them counts, and none where one has none."""

    most = 1
    network_input: str | None = None
    """The input of the network that it needs the mask, or the length, of."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.place = fields.place
        self._settings = fields.values

    def extra_repr(self) -> str:
        """Return what DL4J's JSON says of it."""
        return shown(self._settings, [name for name in self._settings if name not in ("@class", "modified")])

    def forward(self, signals: Sequence[Signal], examples: int, source: Signal | None) -> Signal:
        """Compute the vertex.

        Parameters
        ----------
        signals : sequence of Signal
            What comes in.
        examples : int
            Of the minibatch.
        source : Signal or None
            What came into the network at `network_input`.
        """
        (x, mask), *_ = signals
        return self.compute(x), mask

    def compute(self, x: Tensor) -> Tensor:
        """Return what becomes of one input."""
        raise NotImplementedError


def _any(signals: Sequence[Signal]) -> Tensor | None:
    masks = [mask for _, mask in signals]
    if len(masks) == 1 or any(mask is None for mask in masks):
        return masks[0] if len(masks) == 1 else None
    kept = [mask for mask in masks if mask is not None]
    return reduce(torch.maximum, [(mask != 0).to(mask.dtype) for mask in kept])


class Merge(Vertex):
    """Features behind one another (``MergeVertex``)."""

    most = 1 << 20

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        fields.only("mergeAxis", 1, "features lie on axis 1 of all activations that are read")
        fields.ignore("modified")

    def forward(self, signals: Sequence[Signal], examples: int, source: Signal | None) -> Signal:
        """Join along axis 1."""
        return torch.cat([x for x, _ in signals], 1), _any(signals)


class ElementWise(Vertex):
    """Sum, difference, product, mean or maximum (``ElementWiseVertex``)."""

    most = 1 << 20

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.op = fields.choice("op", tuple(_ELEMENTWISE))
        if self.op == "Subtract":
            self.most = 2

    def forward(self, signals: Sequence[Signal], examples: int, source: Signal | None) -> Signal:
        """Join element by element."""
        y = reduce(_ELEMENTWISE[self.op], [x for x, _ in signals])
        return (y / len(signals) if self.op == "Average" else y), _any(signals)


_ELEMENTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Average": torch.add,
    "Max": torch.maximum,
    "Product": torch.mul,
    "Subtract": torch.sub,
}


class Subset(Vertex):
    """Some features, first and last included (``SubsetVertex``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.first, self.last = fields.integer("from"), fields.integer("to")

    def compute(self, x: Tensor) -> Tensor:
        """Return features `first` to `last`."""
        if not self.first <= self.last < x.shape[1]:
            raise ValueError(f"{self.place}: there are no features {self.first} to {self.last} in {tuple(x.shape)}")
        return x[:, self.first : self.last + 1]


class Stack(Vertex):
    """Examples behind one another (``StackVertex``); shorter sequences are filled up with 0."""

    most = 1 << 20

    def forward(self, signals: Sequence[Signal], examples: int, source: Signal | None) -> Signal:
        """Join along axis 0."""
        masks = [mask for _, mask in signals if mask is not None]
        if masks and len(masks) < len(signals):
            raise ValueError(f"{self.place}: all inputs need masks, or none")
        stacked = torch.cat(_level([x for x, _ in signals], 3))
        return stacked, torch.cat(_level(masks, 2)) if masks else None


def _level(arrays: Sequence[Tensor], axes: int) -> list[Tensor]:
    """Give sequences one length."""
    if any(array.ndim != axes for array in arrays):
        return list(arrays)
    longest = max(array.shape[-1] for array in arrays)
    return [nn.functional.pad(array, (0, longest - array.shape[-1])) for array in arrays]


class Unstack(Vertex):
    """One of the inputs of a stack (``UnstackVertex``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.number, self.count = fields.integer("from"), fields.integer("stackSize", 1)
        if self.number >= self.count:
            raise DataError(f"{fields.place}: from {self.number} must be less than stackSize {self.count}")

    def forward(self, signals: Sequence[Signal], examples: int, source: Signal | None) -> Signal:
        """Return part `number`."""
        (x, mask), *_ = signals
        if len(x) % self.count:
            raise ValueError(f"{self.place}: {len(x)} rows are not {self.count} stacked inputs")
        return self.compute(x), None if mask is None else self.compute(mask)

    def compute(self, x: Tensor) -> Tensor:
        """Return part `number`."""
        step = len(x) // self.count
        return x[self.number * step : (self.number + 1) * step]


class Scale(Vertex):
    """Times a number (``ScaleVertex``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.factor = fields.number("scaleFactor")

    def compute(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x * self.factor


class Shift(Vertex):
    """Plus a number (``ShiftVertex``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.summand = fields.number("shiftFactor")

    def compute(self, x: Tensor) -> Tensor:
        """Add."""
        return x + self.summand


class Reshape(Vertex):
    """Another shape (``ReshapeVertex``); -1 stands for what is left."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        fields.only("reshapeOrder", "c", "reshape in C order in DL4J")
        self.shape = fields.integers("newShape", least=-1)
        self.mask_shape = fields.integers("maskShape", least=-1, default=None)

    def forward(self, signals: Sequence[Signal], examples: int, source: Signal | None) -> Signal:
        """Reshape activations, and the mask where the vertex says how."""
        (x, mask), *_ = signals
        kept = mask if mask is None or self.mask_shape is None else mask.reshape(self.mask_shape)
        return x.reshape(self.shape), kept


class Normalize(Vertex):
    """Divided by its length (``L2NormalizeVertex``), over all axes but the first."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        axes = fields.integers("dimension", default=())
        if axes not in ((), (1,), (1, 2), (1, 2, 3)):
            raise unread(fields.place, f"dimension {list(axes)}", "all axes but the first are")
        self.axes = axes
        self.eps = fields.number("eps", 1e-8)

    def compute(self, x: Tensor) -> Tensor:
        """Normalise each example."""
        axes = tuple(range(1, x.ndim))
        if self.axes not in ((), axes):
            raise ValueError(f"{self.place} is over axes {self.axes}, got {tuple(x.shape)}")
        length: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=True).clamp_min(self.eps)
        return x / length


class LastStep(Vertex):
    """The last step that the mask of an input leaves in (``LastTimeStepVertex``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.network_input = fields.text("maskArrayInputName")

    def forward(self, signals: Sequence[Signal], examples: int, source: Signal | None) -> Signal:
        """Return (examples, size)."""
        (x, _), *_ = signals
        return last_steps(x, None if source is None else source[1]), None


class ToTimeSeries(Vertex):
    """A row for each step of an input (``DuplicateToTimeSeriesVertex``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.network_input = fields.text("inputName")

    def forward(self, signals: Sequence[Signal], examples: int, source: Signal | None) -> Signal:
        """Return (examples, size, time)."""
        (x, _), *_ = signals
        if source is None or source[0].ndim != 3 or x.ndim != 2:
            raise ValueError(f"{self.place} needs rows, and sequences at {self.network_input}")
        return x.unsqueeze(2).expand(-1, -1, source[0].shape[2]), source[1]


class Preprocess(Vertex):
    """A preprocessor (``PreprocessorVertex``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        inner = fields.child("preProcessor")
        assert inner is not None
        self.inner = read_preprocessor(inner)

    def forward(self, signals: Sequence[Signal], examples: int, source: Signal | None) -> Signal:
        """Run the preprocessor."""
        return self.inner(*signals[0], examples)  # type: ignore[no-any-return]


_KNOWN: dict[str, Callable[[Fields], Vertex]] = {
    "ElementWiseVertex": ElementWise,
    "L2NormalizeVertex": Normalize,
    "MergeVertex": Merge,
    "PreprocessorVertex": Preprocess,
    "ReshapeVertex": Reshape,
    "ScaleVertex": Scale,
    "ShiftVertex": Shift,
    "StackVertex": Stack,
    "SubsetVertex": Subset,
    "UnstackVertex": Unstack,
    "DuplicateToTimeSeriesVertex": ToTimeSeries,
    "LastTimeStepVertex": LastStep,
}


def read_vertex(fields: Fields) -> Vertex:
    """Read one vertex that is no layer."""
    made = fields.kind(PACKAGE, _KNOWN, "vertex")(fields)
    fields.done()
    return made
