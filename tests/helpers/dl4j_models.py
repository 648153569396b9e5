"""Configurations and zips of models as DL4J writes them, for what no file of DL4J's own is at hand."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np

from strombus.interchange.dl4j.models import make_model, write_coefficients_
from strombus.interchange.dl4j.ndarray import write_ndarray

LAYERS = "org.deeplearning4j.nn.conf.layers."
RECURRENT = ("SimpleRnn", "Bidirectional", "LastTimeStep")


def activation(name, **options):
    return {"@class": f"org.nd4j.linalg.activations.impl.Activation{name}", **options}


def loss(name, **options):
    return {"@class": f"org.nd4j.linalg.lossfunctions.impl.{name}", **options}


def layer(kind, act=None, **options):
    """Return a layer's JSON; `act` is its activation's name."""
    package = f"{LAYERS}recurrent." if kind in RECURRENT else LAYERS
    given = {} if act is None else {"activationFn": activation(act)}
    return {"@class": package + kind, **given, **options}


def output(size, outputs, act="Softmax", function="LossMCXENT", kind="OutputLayer"):
    return layer(kind, act, nin=size, nout=outputs, lossFn=loss(function))


def conf(one):
    return {"layer": one, "dataType": "DOUBLE", "miniBatch": True, "minimize": True}


def preprocessor(kind, **options):
    return {"@class": f"org.deeplearning4j.nn.conf.preprocessor.{kind}PreProcessor", **options}


def chain(*layers, before=None, **more):
    """Return the configuration of a MultiLayerNetwork in float64."""
    return {"confs": [conf(one) for one in layers], "inputPreProcessors": before or {}, "dataType": "DOUBLE", **more}


def vertex(kind, **options):
    package = "org.deeplearning4j.nn.conf.graph." + ("rnn." if "TimeS" in kind else "")
    return {"@class": f"{package}{kind}Vertex", **options}


def graph(inputs, outputs, **vertices):
    """Return the configuration of a ComputationGraph; vertices are pairs of JSON and the names of what they take."""
    return {
        "networkInputs": inputs,
        "networkOutputs": outputs,
        "topologicalOrderStr": [*inputs, *vertices],
        "vertexInputs": {name: takes for name, (_, takes) in vertices.items()},
        "vertices": {name: _wrapped(one) for name, (one, _) in vertices.items()},
        "dataType": "DOUBLE",
    }


def _wrapped(one):
    if not one["@class"].startswith(LAYERS):
        return one
    return {"@class": "org.deeplearning4j.nn.conf.graph.LayerVertex", "layerConf": conf(one), "preProcessor": None}


def build(configuration, seed=0):
    """Make the module with random numbers; return it in evaluation mode, and DL4J's table of parameters."""
    model = make_model(json.dumps(configuration), "model.zip")
    records = model.origin.records
    values = np.random.default_rng(seed).normal(size=sum(record.size for record in records))
    write_coefficients_(model.module, records, values)
    table = {r.table_key: values[r.offset : r.offset + r.size].reshape(r.shape, order=r.order.upper()) for r in records}
    return model.module.eval(), table


def pack(configuration, values, **entries):
    """Return the bytes of a model zip."""
    numbers = io.BytesIO()
    write_ndarray(numbers, np.asarray(values, np.float64).reshape(1, -1))
    text = configuration if isinstance(configuration, str | bytes) else json.dumps(configuration)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"configuration.json": text, "coefficients.bin": numbers.getvalue(), **entries}.items():
            archive.writestr(name, data)
    return target.getvalue()
