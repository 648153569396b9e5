"""A model zip as a torch module, its losses and the record of its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from strombus.errors import DataError
from strombus.interchange.dl4j.archive import COEFFICIENTS, CONFIGURATION, UPDATER, Archive
from strombus.interchange.dl4j.binary import Input
from strombus.interchange.dl4j.configuration import Configuration, Node, read_configuration
from strombus.interchange.dl4j.fields import unread
from strombus.interchange.dl4j.layers import Layer, Signal, read_layer
from strombus.interchange.dl4j.losses import OutputLoss
from strombus.interchange.dl4j.ndarray import read_data, read_header
from strombus.interchange.dl4j.preprocessors import read_preprocessor
from strombus.interchange.dl4j.records import Origin, ParameterRecord
from strombus.interchange.dl4j.vertices import Vertex, read_vertex

__all__ = ["Graph", "Model", "Sequential", "coefficients_of", "make_model", "read_model", "write_coefficients_"]

_DTYPES = {"FLOAT": torch.float32, "DOUBLE": torch.float64, "HALF": torch.float16}
_STATES = 4
"""Numbers that an updater keeps for each parameter, at most."""


class Dl4jModule(nn.Module):
    """Base: the nodes of a network as child modules of their names."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        super().__init__()
        self.names: dict[str, str] = {}
        self.before: dict[str, str] = {}
        for node in nodes:
            self.names[node.label] = self._adopt(
                node.name, read_layer(node.fields) if node.layer else read_vertex(node.fields)
            )
            if node.preprocessor is not None:
                reader = read_preprocessor(node.preprocessor)
                self.before[node.label] = self._adopt(f"{node.name}_preprocessor", reader)

    def _adopt(self, name: str, module: nn.Module) -> str:
        """Add a child under its name, as far as torch allows."""
        plain = re.sub(r"\W", "_", name) or "layer"
        while plain in self._modules or hasattr(self, plain):
            plain += "_"
        self.add_module(plain, module)
        return plain

    def node(self, label: str) -> nn.Module:
        """Return a layer or vertex by what DL4J calls it."""
        return self.get_submodule(self.names[label])

    def compute(self, label: str, signal: Signal, examples: int) -> Signal:
        """Run a layer, and what stands before it."""
        layer = self.node(label)
        assert isinstance(layer, Layer)
        x, mask = signal
        if not (x.is_floating_point() or layer.indices):
            x = x.to(self.dtype)
        if label in self.before:
            x, mask = self.get_submodule(self.before[label])(x, mask, examples)
        found: Signal = layer(x, mask, examples)
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def losses_of(self, label: str) -> tuple[OutputLoss, ...]:
        """Return the loss of an output layer, nothing of any other node."""
        return getattr(self.get_submodule(self.names[label]) if label in self.names else None, "losses", ())


class Sequential(Dl4jModule):
    """Layer after layer (``MultiLayerNetwork``); arrays are in DL4J's layouts."""

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the last layer's activations: of softmax, probabilities.

        Parameters
        ----------
        features : Tensor, shape (examples, size), (examples, size, time) or (examples, channels, height, width)
        mask : Tensor, shape (examples, time), optional
            Steps that it leaves out are 0 in the output.
        """
        signal: Signal = (features, mask)
        for label in self.names:
            signal = self.compute(label, signal, len(features))
        return signal[0]


class Graph(Dl4jModule):
    """Layers and vertices (``ComputationGraph``); arrays are in DL4J's layouts.

    Parameters
    ----------
    configuration : Configuration
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration.nodes)
        self.inputs, self.outputs = configuration.inputs, configuration.outputs
        self.takes = {node.label: node.inputs for node in configuration.nodes}
        for node in configuration.nodes:
            vertex = self.node(node.label)
            if isinstance(vertex, Vertex):
                if len(node.inputs) > vertex.most:
                    raise DataError(f"{vertex.place}: it takes {vertex.most} input(s), got {len(node.inputs)}")
                if vertex.network_input not in (None, *self.inputs):
                    raise DataError(f"{vertex.place}: {vertex.network_input!r} is none of the network's inputs")

    def forward(self, *features: Tensor, masks: tuple[Tensor | None, ...] = ()) -> tuple[Tensor, ...]:
        """Return the outputs' activations: of softmax, probabilities.

        Parameters
        ----------
        *features : Tensor
            One for each input.
        masks : tuple of Tensor or None, optional
        """
        if len(features) != len(self.inputs):
            raise ValueError(f"the graph takes inputs {', '.join(self.inputs)}, got {len(features)} array(s)")
        given = masks or (None,) * len(features)
        signals: dict[str, Signal] = dict(zip(self.inputs, zip(features, given, strict=True), strict=True))
        examples = len(features[0])
        for label, names in self.takes.items():
            vertex = self.node(label)
            if isinstance(vertex, Vertex):
                rows = [self._numbers(signals[name]) for name in names]
                source = None if vertex.network_input is None else signals[vertex.network_input]
                signals[label] = vertex(rows, examples, source)
            else:
                signals[label] = self.compute(label, signals[names[0]], examples)
        return tuple(signals[name][0] for name in self.outputs)

    def _numbers(self, signal: Signal) -> Signal:
        x, mask = signal
        return (x if x.is_floating_point() else x.to(self.dtype)), mask


@dataclass(frozen=True)
class Model:
    """A model as it was read.

    Parameters
    ----------
    module : Sequential or Graph
    losses : tuple of OutputLoss, or None
        One for each output; None where an output is no output layer, and the network cannot be trained.
    origin : Origin
    graph : bool
    iteration, epoch : int
    """

    module: Dl4jModule
    losses: tuple[OutputLoss, ...] | None
    origin: Origin
    graph: bool
    iteration: int
    epoch: int


def read_model(file: IO[bytes], name: str, training: bool = True) -> Model:
    """Read a model zip.

    Parameters
    ----------
    file : binary file
        It can seek.
    name : str
        What errors call it.
    training : bool
        Whether what concerns training alone must be understood too.

    Raises
    ------
    DataError
        When the zip, its JSON or its arrays are damaged, or contradict one another.
    ConfigurationError
        For a layer or an option that is not read; names it, its place and what to do.
    """
    archive = Archive(file, name)
    model = make_model(archive.read(CONFIGURATION), name, training)
    records = model.origin.records
    count = sum(record.size for record in records)
    write_coefficients_(model.module, records, _coefficients(archive, count, name), name)
    if UPDATER in archive:
        model.origin.updater_state = archive.read(UPDATER, _STATES * 8 * count + 4096)
    model.origin.entries = archive.others()
    return model


def make_model(text: str | bytes, name: str, training: bool = True) -> Model:
    """Make a network from its configuration alone; its parameters have no memory yet (device ``meta``).

    Raises
    ------
    DataError, ConfigurationError
        See `read_model`.
    """
    configuration = read_configuration(text, name, training)
    if configuration.dtype not in ("", *_DTYPES):
        raise unread(name, f"dataType {configuration.dtype}", f"read are: {', '.join(_DTYPES)}; convert it in DL4J")
    module = Graph(configuration) if configuration.graph else Sequential(configuration.nodes)
    module.to(_DTYPES[configuration.dtype or "FLOAT"])
    losses = tuple(loss for label in configuration.outputs for loss in module.losses_of(label))
    kept = losses if len(losses) == len(configuration.outputs) else None
    origin = Origin(configuration.text, tuple(_records(module)), training=training)
    return Model(module, kept, origin, configuration.graph, configuration.iteration, configuration.epoch)


def _records(module: Dl4jModule) -> Iterator[ParameterRecord]:
    offset = 0
    for label, child in module.names.items():
        for e in getattr(module.get_submodule(child), "entries", ()):
            size = int(np.prod(e.shape, dtype=object))
            yield ParameterRecord(label, e.key, f"{child}.{e.name}", e.shape, e.order, offset, size, e.role, e.settings)
            offset += size


def _coefficients(archive: Archive, count: int, name: str) -> NDArray[Any]:
    """Return the vector; it is as long as the configuration says before its numbers are looked at."""
    data = archive.read(COEFFICIENTS, 8 * count + 4096)
    if not count and not data:
        return np.empty(0, np.float32)
    stream = Input(data, f"{name}, {COEFFICIENTS}")
    header = read_header(stream)
    if header.size != count:
        raise DataError(f"{name}: {COEFFICIENTS} has {header.size:,} numbers, the configuration's layers {count:,}")
    found = read_data(stream, header)
    if stream.remaining:
        raise stream.fail(f"{stream.remaining:,} bytes follow the array, where it should end")
    if found.dtype.kind != "f":
        raise DataError(f"{name}: {COEFFICIENTS} must be floating-point numbers, got {header.type}")
    return np.asarray(found.ravel())


def write_coefficients_(
    module: nn.Module, records: Sequence[ParameterRecord], values: NDArray[Any], name: str = "the vector"
) -> None:
    """Give a module the numbers of DL4J's vector, in place.

    Raises
    ------
    DataError
        When their number is another.
    """
    count = sum(record.size for record in records)
    if len(values) != count:
        raise DataError(f"{name} has {len(values):,} numbers, the network {count:,}")
    for record in records:
        path, _, attribute = record.name.rpartition(".")
        owner = module.get_submodule(path)
        old = getattr(owner, attribute)
        piece = torch.tensor(values[record.offset : record.offset + record.size], dtype=old.dtype).view(old.shape)
        if old.is_meta and isinstance(old, nn.Parameter):
            owner.register_parameter(attribute, nn.Parameter(piece))
        elif old.is_meta:
            owner.register_buffer(attribute, piece)
        else:
            with torch.no_grad():
                old.copy_(piece)


def coefficients_of(module: nn.Module, records: Sequence[ParameterRecord]) -> NDArray[Any]:
    """Return a module's numbers as DL4J's vector."""
    tensors: dict[str, Tensor] = dict([*module.named_parameters(), *module.named_buffers()])
    pieces = [tensors[record.name].detach().cpu().reshape(-1).numpy() for record in records]
    return np.concatenate(pieces) if pieces else np.empty(0, np.float32)
