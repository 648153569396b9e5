"""Recurrent layers, those that wrap them, and pooling over time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from strombus.interchange.dl4j.activations import read_activation
from strombus.interchange.dl4j.fields import Fields, unread
from strombus.interchange.dl4j.layers.base import Entry, Layer, Signal, masked, pass_training
from strombus.interchange.dl4j.layers.feedforward import SEQUENCES, check_features

__all__ = ["Bidirectional", "GlobalPooling", "GravesLstm", "LastTimeStep", "Lstm", "SimpleRnn", "last_steps"]

LayerReader = Callable[[Fields], Layer]


class Recurrent(Layer):
    """Base: input weights, recurrent weights and a bias, in DL4J's order of gates.

    A masked step gives 0, and the state after it is 0, as in DL4J.
    """

    weight: Tensor
    recurrent_weight: Tensor
    bias: Tensor
    gates, peepholes = 1, 0

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        self.inputs, self.size = fields.integer("nin", 1), fields.integer("nout", 1)
        self.activation = read_activation(fields)
        rows, columns = self.gates * self.size, self.gates * self.size + self.peepholes
        self.declare("weight", "W", (self.inputs, rows), (rows, self.inputs))
        self.declare("recurrent_weight", "RW", (self.size, columns), (columns, self.size))
        self.declare("bias", "b", (1, rows), role="bias")
        fields.only("rnnDataFormat", "NCW", SEQUENCES)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute (examples, size, time)."""
        check_features(self, x, 3, self.inputs)
        if mask is not None and mask.shape != (x.shape[0], x.shape[2]):
            raise ValueError(f"{self.place} takes masks {(x.shape[0], x.shape[2])}, got {tuple(mask.shape)}")
        z = F.linear(self.noisy(x).permute(2, 0, 1), self.weight, self.bias)
        states = x.new_zeros(2, len(x), self.size).unbind()
        steps = []
        for time, one in enumerate(z.unbind()):
            states = self.step(one, *states)
            if mask is not None:
                column = mask[:, time : time + 1]
                states = states[0] * column, states[1] * column
            steps.append(states[0])
        return torch.stack(steps, 2), mask

    def step(self, z: Tensor, out: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return output and state of a step from its weighted input, and the last step's."""
        raise NotImplementedError


class SimpleRnn(Recurrent):
    """``out = activation(x W + last RW + b)`` (``SimpleRnn``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        fields.only("hasLayerNorm", False, "layer normalisation is not part of what can be imported")

    def step(self, z: Tensor, out: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output twice."""
        now = self.activation(z + F.linear(out, self.recurrent_weight))
        return now, now


class Lstm(Recurrent):
    """``LSTM``; its gates are block input, forget, output and input gate, in this order."""

    gates = 4

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.gate = read_activation(fields, "gateActivationFn", "Sigmoid")
        self.plain = (self.activation.name, self.gate.name, self.peepholes) == ("TanH", "Sigmoid", 0)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute (examples, size, time), at once where torch can: no step counts after one that does not."""
        whole = mask is None or (mask.ndim == 2 and bool((mask[:, 1:] <= mask[:, :-1]).all()))
        if not (self.plain and whole and x.dtype in (torch.float32, torch.float64)):
            return super().forward(x, mask, examples)
        check_features(self, x, 3, self.inputs)
        start = x.new_zeros(1, len(x), self.size)
        weights = (self._gates(self.weight), self._gates(self.recurrent_weight), self._gates(self.bias))
        given = [*weights, torch.zeros_like(self.bias)]
        y, *_ = torch.lstm(
            self.noisy(x).permute(2, 0, 1), [start, start], given, True, 1, 0.0, self.training, False, False
        )
        return masked(y.permute(1, 2, 0), mask), mask

    def _gates(self, values: Tensor) -> Tensor:
        """Return DL4J's gates in torch's order."""
        block, forget, output, gate = values.chunk(4)
        return torch.cat((gate, forget, block, output))

    def step(self, z: Tensor, out: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return output and memory cells."""
        block, forget, output, gate = (z + F.linear(out, self.recurrent_weight[: 4 * self.size])).chunk(4, 1)
        looks = self.recurrent_weight[4 * self.size :]
        if len(looks):
            forget, gate = forget + cell * looks[0], gate + cell * looks[2]
        cell = self.gate(forget) * cell + self.gate(gate) * self.activation(block)
        if len(looks):
            output = output + cell * looks[1]
        return self.gate(output) * self.activation(cell), cell


class GravesLstm(Lstm):
    """An LSTM with peepholes (``GravesLSTM``): the output gate sees the cells of the step, the others those before."""

    peepholes = 3


class Wrapper(Layer):
    """Base of layers around others; `read` reads these."""

    def adopt(self, name: str, inner: Layer, prefix: str) -> None:
        """Make the parameters of an inner layer this one's."""
        self.add_module(name, inner)
        self.entries += [
            Entry(prefix + e.key, f"{name}.{e.name}", e.shape, e.order, e.settings, e.role) for e in inner.entries
        ]


class Bidirectional(Wrapper):
    """One layer forwards, one backwards (``Bidirectional``)."""

    forwards: Layer
    backwards: Layer

    def __init__(self, fields: Fields, read: LayerReader) -> None:
        super().__init__(fields)
        pass_training(fields)
        if self.dropout is not None:
            raise unread(fields.place, "idropout of a wrapper", "set it on the wrapped layers in DL4J")
        fields.ignore("nin", "nout")
        fields.only("rnndataFormat", "NCW", SEQUENCES)
        self.mode = fields.choice("mode", ("CONCAT", "ADD", "MUL", "AVERAGE"))
        for name, key, prefix in (("forwards", "fwd", "f"), ("backwards", "bwd", "b")):
            inner = fields.child(key)
            assert inner is not None
            self.adopt(name, read(inner), prefix)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute (examples, size, time)."""
        there, kept = self.forwards(x, mask, examples)
        back, _ = self.backwards(x.flip(2), None if mask is None else mask.flip(1), examples)
        back = back.flip(2) if back.ndim == 3 else back
        if self.mode == "CONCAT":
            return torch.cat((there, back), 1), kept
        if self.mode == "MUL":
            return there * back, kept
        return (there + back) * (0.5 if self.mode == "AVERAGE" else 1), kept


class LastTimeStep(Wrapper):
    """The last step that a layer's mask leaves in (``LastTimeStep``)."""

    inner: Layer

    def __init__(self, fields: Fields, read: LayerReader) -> None:
        super().__init__(fields)
        pass_training(fields)
        if self.dropout is not None:
            raise unread(fields.place, "idropout of a wrapper", "set it on the wrapped layer in DL4J")
        inner = fields.child("underlying")
        assert inner is not None
        self.adopt("inner", read(inner), "")

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute (examples, size)."""
        y, kept = self.inner(x, mask, examples)
        return last_steps(y, kept), None


def last_steps(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the last step of each example that a mask leaves in; the first where it leaves none in."""
    if x.ndim != 3:
        raise ValueError(f"the last time step needs sequences (examples, size, time), got {tuple(x.shape)}")
    if mask is None:
        return x[:, :, -1]
    if mask.shape != (x.shape[0], x.shape[2]):
        raise ValueError(f"masks {(x.shape[0], x.shape[2])} are wanted, got {tuple(mask.shape)}")
    places = ((mask != 0) * torch.arange(x.shape[2], device=x.device)).amax(1)
    return x.gather(2, places.view(-1, 1, 1).expand(-1, x.shape[1], 1)).squeeze(2)


class GlobalPooling(Layer):
    """The largest, mean, sum or p-norm over time, or over height and width (``GlobalPoolingLayer``)."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        if self.dropout is not None:
            raise unread(fields.place, "idropout of a pooling layer", "DL4J leaves it out; remove it")
        self.kind = fields.choice("poolingType", ("MAX", "AVG", "SUM", "PNORM"))
        self.power = fields.integer("pnorm", default=2)
        self.collapse = fields.flag("collapseDimensions", True)
        self.axes = fields.integers("poolingDimensions", default=None)
        if self.kind == "PNORM" and self.power < 1:
            raise unread(fields.place, f"pnorm {self.power}", "give a norm of 1 or more in DL4J")
        if self.axes not in (None, (2,), (2, 3)):
            raise unread(
                fields.place, f"poolingDimensions {list(self.axes)}", "those of time, or height and width, are"
            )

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute (examples, size); no mask is left."""
        axes = tuple(range(2, x.ndim))
        if not axes or self.axes not in (None, axes):
            raise ValueError(f"{self.place} pools axes {self.axes or '2, 3'}, got {tuple(x.shape)}")
        weight = None if mask is None else self._weight(x, mask)
        y = self._pool(x, weight, axes)
        return (y if self.collapse else y[(..., *(None,) * len(axes))]), None

    def _pool(self, x: Tensor, weight: Tensor | None, axes: tuple[int, ...]) -> Tensor:
        if self.kind == "MAX":
            return (x if weight is None else torch.where(weight != 0, x, -torch.inf)).amax(axes)
        kept = x if weight is None else x * weight
        if self.kind == "AVG":
            # DL4J counts a mask's own entries, also where one stands for a whole row of pixels
            return kept.mean(axes) if weight is None else kept.sum(axes) / weight.sum(axes)
        if self.kind == "SUM":
            return kept.sum(axes)
        sums = (kept.abs() ** self.power).sum(axes)
        # no gradient where all is 0: that of the root would be infinite
        return torch.where(sums > 0, sums, 1) ** (1 / self.power) * (sums > 0)

    def _weight(self, x: Tensor, mask: Tensor) -> Tensor:
        if x.ndim == 3 and mask.shape == (x.shape[0], x.shape[2]):
            return mask.unsqueeze(1)
        if x.ndim == mask.ndim == 4:
            return mask
        raise ValueError(f"{self.place}: a mask of shape {tuple(mask.shape)} does not fit {tuple(x.shape)}")
