"""``configuration.json`` of a model: the nodes of the network in the order of DL4J's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from strombus.documents import DocumentError, parse_json, shorten
from strombus.errors import DataError
from strombus.interchange.dl4j.fields import Fields, Options, unread

__all__ = ["Configuration", "Node", "read_configuration"]

_LONGEST = 16 << 20
_INERT = (
    "cacheMode",
    "inferenceWorkspaceMode",
    "trainingWorkspaceMode",
    "validateOutputLayerConfig",
    "tbpttBackLength",
    "tbpttFwdLength",
    "backprop",
)
_LAYER_VERTEX = "org.deeplearning4j.nn.conf.graph.LayerVertex"


@dataclass(frozen=True)
class Node:
    """A layer or another vertex.

    Parameters
    ----------
    label : str
        What DL4J calls it in names of parameters: a layer's number, a vertex's name.
    name : str
        Its own name.
    fields : Fields
        Its configuration.
    inputs : tuple of str
        Labels of the nodes, or names of the network's inputs, that it takes.
    layer : bool
    preprocessor : Fields or None
    """

    label: str
    name: str
    fields: Fields
    inputs: tuple[str, ...]
    layer: bool
    preprocessor: Fields | None = None


@dataclass(frozen=True)
class Configuration:
    """A whole network; `nodes` come after what they take, in the order of DL4J's parameters."""

    text: str
    graph: bool
    dtype: str
    iteration: int
    epoch: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]


def read_configuration(text: str | bytes, name: str, training: bool = True) -> Configuration:
    """Read a configuration.

    Parameters
    ----------
    text : str or bytes
    name : str
        What errors call it.
    training : bool
        Whether what concerns training alone must be understood too.

    Raises
    ------
    DataError
        When it is no such JSON.
    ConfigurationError
        For an option that is not read; names it, its place and what to do.
    """
    try:
        plain = text.decode() if isinstance(text, bytes) else text
        values = parse_json(plain, _LONGEST)
    except (DocumentError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: the configuration is no JSON as DL4J writes it: {error}") from None
    fields = Fields(values, name, Options(training))
    if "confs" in fields.values:
        return _chain(plain, fields)
    if "vertices" in fields.values:
        return _graph(plain, fields)
    raise DataError(f"{name}: the configuration has neither confs (MultiLayerNetwork) nor vertices (ComputationGraph)")


def _network(fields: Fields) -> tuple[int, int]:
    """Take what both kinds have; return iteration and epoch."""
    fields.ignore(*_INERT)
    fields.only_for_training("pretrain", False, "layerwise pretraining")
    fields.only_for_training("backpropType", "Standard", "truncated backpropagation through time")
    return fields.integer("iterationCount", default=0), fields.integer("epochCount", default=0)


def _general(conf: Fields) -> str | None:
    """Take what stands beside a layer; return the type of its parameters."""
    conf.ignore(
        "cacheMode", "epochCount", "iterationCount", "maxNumLineSearchIterations", "seed", "stepFunction", "variables"
    )
    conf.only("miniBatch", True, "scores and gradients that are not divided by the minibatch's size; set it in DL4J")
    conf.only("minimize", True, "networks are trained to minimise")
    conf.only_for_training("optimizationAlgo", "STOCHASTIC_GRADIENT_DESCENT", "another algorithm than gradient descent")
    return conf.text("dataType", None)


def _dtype(fields: Fields, found: Sequence[str | None]) -> str:
    kinds = {one for one in found if one is not None}
    if len(kinds) > 1:
        raise unread(fields.place, f"layers of different types ({', '.join(sorted(kinds))})", "give all one in DL4J")
    return kinds.pop() if kinds else ""


def _chain(text: str, fields: Fields) -> Configuration:
    confs = fields.take("confs")
    if not isinstance(confs, list) or not confs:
        raise DataError(f"{fields.place}: confs must be a list of layers, got {shorten(confs)}")
    before = fields.child("inputPreProcessors", {})
    assert before is not None
    nodes: list[Node] = []
    kinds: list[str | None] = [fields.text("dataType", None)]
    for number, value in enumerate(confs):
        conf = fields.at(value, f"layer {number}")
        kinds.append(_general(conf))
        layer = _layer(conf, f"{fields.place}, layer {number}")
        conf.done()
        label, previous = str(number), str(number - 1) if number else "input"
        preprocessor = before.child(label, None)
        nodes.append(Node(label, _name(layer, f"layer{number}"), layer, (previous,), True, preprocessor))
    before.done()
    iteration, epoch = _network(fields)
    fields.done()
    return Configuration(
        text, False, _dtype(fields, kinds), iteration, epoch, ("input",), (nodes[-1].label,), tuple(nodes)
    )


def _layer(conf: Fields, place: str) -> Fields:
    value = conf.take("layer")
    named = isinstance(value, dict) and isinstance(value.get("@class"), str)
    if not named:
        raise DataError(
            f"{place}: a layer must name its @class, got {shorten(value, 80)}; a file of DL4J before 1.0.0-beta "
            "does not: restore it with 1.0.0-M2 and save it again"
        )
    called = value.get("layerName")
    title = f" {shorten(called, 60)}" if isinstance(called, str) else ""
    return Fields(value, f"{place}{title} ({shorten(value['@class'].rpartition('.')[2], 60)[1:-1]})", conf.options)


def _name(layer: Fields, default: str) -> str:
    return layer.text("layerName", None) or default


def _graph(text: str, fields: Fields) -> Configuration:
    inputs, outputs = fields.texts("networkInputs"), fields.texts("networkOutputs")
    vertices, feeds = fields.child("vertices"), fields.child("vertexInputs")
    general = fields.child("defaultConfiguration", None)
    assert vertices is not None
    assert feeds is not None
    kinds: list[str | None] = [fields.text("dataType", None)]
    if general is not None:
        general.ignore("layer")
        kinds.append(_general(general))
        general.done()
    nodes: list[Node] = []
    known = set(inputs)
    for name in _order(fields, [*inputs, *vertices.values]):
        if name in inputs:
            continue
        takes = feeds.texts(name)
        missing = [one for one in takes if one not in known]
        if missing or not takes:
            raise DataError(
                f"{fields.place}: vertex {shorten(name)} takes {missing or 'nothing'}, which is not before it"
            )
        nodes.append(_vertex(vertices, name, takes, kinds))
        known.add(name)
    if not outputs or not set(outputs) <= known or len(set(inputs)) < len(inputs):
        raise DataError(f"{fields.place}: networkInputs and networkOutputs must name inputs once, and vertices")
    feeds.done()
    vertices.done()
    iteration, epoch = _network(fields)
    fields.done()
    return Configuration(text, True, _dtype(fields, kinds), iteration, epoch, inputs, outputs, tuple(nodes))


def _order(fields: Fields, names: list[str]) -> list[str]:
    """Return the names in DL4J's topological order, which is that of the parameters."""
    numbers = fields.take("topologicalOrder", None)
    order: Any = fields.take("topologicalOrderStr", None)
    if order is None and isinstance(numbers, list) and sorted(map(str, numbers)) == sorted(map(str, range(len(names)))):
        order = [names[int(number)] for number in numbers]
    if order is None:
        raise DataError(
            f"{fields.place}: topologicalOrderStr is missing, which says how the parameters follow one another; "
            "restore the model with DL4J 1.0.0-M2 and save it again"
        )
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(names):
        raise DataError(
            f"{fields.place}: topologicalOrderStr must name each input and vertex once, got {shorten(order)}"
        )
    return order


def _vertex(vertices: Fields, name: str, takes: tuple[str, ...], kinds: list[str | None]) -> Node:
    place = f"{vertices.place.removesuffix(', vertices')}, vertex {shorten(name, 60)}"
    fields = Fields(vertices.take(name), place, vertices.options)
    if fields.values.get("@class") != _LAYER_VERTEX:
        return Node(name, name, fields, takes, False)
    fields.ignore("@class", "outputVertex")
    conf = fields.child("layerConf")
    assert conf is not None
    kinds.append(_general(conf))
    layer = _layer(conf, place)
    conf.done()
    layer.ignore("layerName")
    preprocessor = fields.child("preProcessor", None)
    fields.done()
    if len(takes) != 1:
        raise DataError(f"{place}: a layer takes one input, got {len(takes)}")
    return Node(name, name, layer, takes, True, preprocessor)
