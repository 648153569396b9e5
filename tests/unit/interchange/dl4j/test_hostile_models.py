"""Model zips from anywhere: read whole, or refused with a word on what, where and what to do."""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.dl4j_models import activation, build, chain, conf, graph, layer, loss, output, pack, preprocessor, vertex
from safetensors.numpy import save as save_tensors

import strombus as sb
from strombus.errors import ConfigurationError, DataError, MissingDataError
from strombus.interchange.dl4j.models import read_model

GOLDEN = Path(__file__).parents[3] / "golden/dl4j/models"
DENSE = layer("DenseLayer", "TanH", nin=4, nout=3)
MLP = chain(DENSE, output(3, 2))
COUNT = 4 * 3 + 3 + 3 * 2 + 2


def read(data, training=True):
    return read_model(io.BytesIO(data), "model.zip", training)


def refused(data):
    """Say whether bytes were refused; anything but our own errors comes through."""
    try:
        model = read(data)
    except (DataError, ConfigurationError) as error:
        return len(str(error)) < 5000
    assert sum(p.numel() for p in model.module.state_dict().values()) == sum(r.size for r in model.origin.records)
    return False


@pytest.mark.parametrize("name", ["mlp_adam", "graph_residual_conv"])
def test_cut_short_at_every_byte(name):
    data = (GOLDEN / f"{name}.zip").read_bytes()
    assert all(refused(data[:length]) for length in range(len(data)))


def test_every_byte_changed():
    data = (GOLDEN / "embedding.zip").read_bytes()
    whole = read(data).origin
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0xFF
        try:
            found = read(bytes(changed)).origin
        except (DataError, ConfigurationError):
            continue
        # what is left are times and versions, which say nothing about the network
        assert (found.configuration, found.records) == (whole.configuration, whole.records), place


NASTY = (None, True, -1, 0, 3, 2**31, 1.5, "x", "", [], [1], {}, {"@class": "java.lang.Runtime"}, [[[]]])


def leaves(value, path=()):
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            yield from leaves(inner, (*path, key))


@pytest.mark.parametrize("name", ["lenet_batch_norm", "graph_residual_conv", "simple_rnn_last_step"])
def test_every_value_of_a_configuration_replaced(name):
    with zipfile.ZipFile(GOLDEN / f"{name}.zip") as archive:
        text = archive.read("configuration.json")
    values = np.zeros(json.loads((GOLDEN / f"{name}.json").read_text())["number_of_parameters"])
    good = json.loads(text)
    assert not refused(pack(text, values))
    outcomes = set()
    for number, path in enumerate(list(leaves(good))):
        place = good
        for key in path[:-1]:
            place = place[key]
        before = place[path[-1]]
        for nasty in NASTY[number % 4 :: 4]:
            place[path[-1]] = nasty
            outcomes.add(refused(pack(good, values)))
        place[path[-1]] = before
    assert outcomes == {True, False}


def test_an_unknown_property_is_named_with_its_place():
    one = {**DENSE, "hasMagic": True}
    with pytest.raises(
        ConfigurationError, match=r"model\.zip, layer 0 \(DenseLayer\): the option hasMagic = True is not"
    ):
        read(pack(chain(one, output(3, 2)), np.zeros(COUNT)))


IMAGE = {"kernelSize": [2, 2], "nin": 1, "nout": 1}
MSE = loss("LossMSE")
UNREAD = {
    "layer": (
        layer("CapsuleLayer"),
        r"layer 0 \(CapsuleLayer\): the layer '.*CapsuleLayer' is not read; read are: Act",
    ),
    "layer of others": ({**DENSE, "@class": "com.acme.layers.DenseLayer"}, "the layer 'com.acme.layers.DenseLayer'"),
    "activation": (layer("DenseLayer", "Magic", nin=4, nout=3), r"activationFn: the activation '.*ActivationMagic'"),
    "precise GELU": ({**DENSE, "activationFn": activation("GELU", precise=True)}, "precise True is not read"),
    "loss": (layer("LossLayer", "TanH", lossFn=loss("LossFMeasure")), r"lossFn: the loss '.*LossFMeasure' is not read"),
    "sigmoid's loss": (layer("LossLayer", "Softmax", lossFn=loss("LossBinaryXENT")), "LossBinaryXENT with softmax"),
    "dropout": ({**DENSE, "idropout": {"@class": "x.Dropout", "p": 0.5}}, "idropout: the dropout 'x.Dropout'"),
    "images": (
        layer("ConvolutionLayer", "TanH", cnn2dDataFormat="NHWC", **IMAGE),
        "cnn2dDataFormat 'NHWC' is not read",
    ),
    "sequences": (layer("LSTM", "TanH", nin=1, nout=1, rnnDataFormat="NWC"), "rnnDataFormat 'NWC' is not read"),
    "mode": (layer("ConvolutionLayer", "TanH", convolutionMode="Causal", **IMAGE), "convolutionMode 'Causal'"),
    "pooling": (layer("SubsamplingLayer", poolingType="SUM", kernelSize=[2, 2]), "poolingType 'SUM' is not read"),
    "normalisation": ({**DENSE, "hasLayerNorm": True}, "hasLayerNorm True is not read"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_what_is_not_read_is_named(case):
    one, words = UNREAD[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        read(pack(chain(one), []))
    assert "layer 0" in str(caught.value)


def test_vertices_and_preprocessors_that_are_not_read_are_named():
    with pytest.raises(
        ConfigurationError, match=r"vertex 'v': the vertex '.*DotProductVertex' is not read; read are: Dup"
    ):
        read(pack(graph(["a", "b"], ["v"], v=(vertex("DotProduct"), ["a", "b"])), []))
    with pytest.raises(ConfigurationError, match=r"inputPreProcessors, 0: the preprocessor '.*UnitVariancePre"):
        read(pack(chain(DENSE, before={"0": preprocessor("UnitVariance")}), np.zeros(15)))


TRAINING = {
    "backpropType": {"backpropType": "TruncatedBPTT"},
    "constraints": {"constraints": [{"@class": "org.deeplearning4j.nn.conf.constraint.MaxNormConstraint"}]},
    "dropout": {
        "idropout": {
            "@class": "org.deeplearning4j.nn.conf.dropout.Dropout",
            "p": "NaN",
            "pschedule": {"@class": "org.nd4j.linalg.schedule.StepSchedule"},
        }
    },
    "weightNoise": {"weightNoise": {"@class": "org.deeplearning4j.nn.conf.weightnoise.DropConnect"}},
}


@pytest.mark.parametrize("name", TRAINING)
def test_what_only_training_needs_may_be_passed_over(name, tmp_path):
    configuration = copy.deepcopy(MLP)
    target = configuration if name == "backpropType" else configuration["confs"][0]["layer"]
    target |= TRAINING[name]
    (tmp_path / "model.zip").write_bytes(pack(configuration, np.ones(COUNT)))
    with pytest.raises(ConfigurationError, match=rf"{name} .*training=False\) reads the network for predictions"):
        sb.load_dl4j(tmp_path / "model.zip")
    network = sb.load_dl4j(tmp_path / "model.zip", training=False)
    module, _ = build(MLP)
    assert network.predict(np.zeros((2, 4))).shape == module(network.module.layer0.weight.new_zeros(2, 4)).shape


def zipped(**entries):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/"), data)
    return target.getvalue()


def test_a_bomb_is_refused_before_it_grows():
    size = 4200
    big = chain(layer("DenseLayer", "TanH", nin=size, nout=size, hasBias=False))
    data = pack(big, np.zeros(size * size))
    assert len(data) < 1 << 20
    with pytest.raises(DataError, match=r"coefficients\.bin would grow from [\d,]+ to 141,[\d,]+ bytes, as no trained"):
        read(data)
    with pytest.raises(DataError, match=r"configuration\.json would have 17,000,000 bytes, at most 16,777,216"):
        read(zipped(**{"configuration.json": " " * 17_000_000}))


def test_sizes_that_no_file_holds():
    huge = layer("DenseLayer", "TanH", nin=2**31 - 1, nout=2**31 - 1)
    with pytest.raises(DataError, match=r"a parameter W of shape \[2147483647, 2147483647\] is more than any file"):
        read(pack(chain(huge), []))
    large = layer("DenseLayer", "TanH", nin=2**20, nout=2**19)
    with pytest.raises(DataError, match=r"coefficients\.bin has 1 numbers, the configuration's layers 549,756,338,176"):
        read(pack(chain(large), [1.0]))


def test_numbers_and_layers_must_agree():
    with pytest.raises(DataError, match=r"coefficients\.bin has 22 numbers, the configuration's layers 23"):
        read(pack(MLP, np.zeros(COUNT - 1)))
    with pytest.raises(DataError, match=r"coefficients\.bin would have [\d,]+ bytes, at most 4,280 fit the model"):
        read(pack(MLP, np.zeros(100_000)))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "C:/x", "..\\evil", "a\nb"])
def test_entries_that_would_lie_elsewhere(name):
    with pytest.raises(DataError, match=r"has an entry .*which would lie outside of it; nothing was read"):
        read(pack(MLP, np.zeros(COUNT), **{name: b"x"}))


def test_two_entries_of_one_name_and_ways_of_compression():
    target = io.BytesIO(pack(MLP, np.zeros(COUNT)))
    with zipfile.ZipFile(target, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("configuration.json", json.dumps(chain(DENSE)))
    with pytest.raises(DataError, match="two entries of one name"):
        read(target.getvalue())
    target = io.BytesIO(pack(MLP, np.zeros(COUNT)))
    with zipfile.ZipFile(target, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("more", b"x" * 1000)
    with pytest.raises(DataError, match="'more' is compressed in a way"):
        read(target.getvalue())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is neither a model zip of DL4J nor a saved network"),
        (b"PK\x03\x04 but no zip", "is no zip file as DL4J's ModelSerializer writes it"),
        (struct.pack("<Q", 2**63) + b"{}", "is neither a model zip of DL4J nor a saved network"),
        (zipped(other="x"), r"has no configuration\.json, so it is no model of DL4J; it has 'other'"),
        (zipped(**{"configuration.json": "[" * 10_000}), "the configuration is no JSON as DL4J writes it"),
        (zipped(**{"configuration.json": "{}"}), r"neither confs \(MultiLayerNetwork\) nor vertices"),
        (zipped(**{"configuration.json": '{"confs": [{"layer": {"dense": {}}}]}'}), r"before 1\.0\.0-beta"),
        (pack(chain(DENSE, dataType="BFLOAT16"), []), "layers of different types"),
    ],
)
def test_other_files(tmp_path, data, words):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises((DataError, ConfigurationError), match=words):
        sb.load_dl4j(tmp_path / "file")


def saved(configuration, entries, tensors=None):
    """Return a network file that claims to come from DL4J."""
    note = json.dumps({"format": 1, "dl4j": {"configuration": configuration, "entries": entries}})
    return save_tensors(tensors or {"module.x": np.zeros(COUNT, np.float32)}, {"strombus": note})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved(json.dumps(MLP), {"x": "no base64!"}), "is neither a model zip of DL4J nor a saved network"),
        (saved(json.dumps(MLP), ["x"]), "is neither a model zip of DL4J nor a saved network"),
        (saved(1.5, {}), "an object must stand here, got 1.5"),
        (saved("{}", {}), "neither confs"),
        (saved(json.dumps(MLP), {}), r"its configuration has 23 parameters, its tensors 92 bytes"),
        (
            saved(json.dumps({**MLP, "dataType": None}).replace("DOUBLE", "FLOAT"), {}),
            r"holds another module's values|is damaged",
        ),
        (save_tensors({"module.x": np.zeros(3)}, {"strombus": "{}"}), "nor a saved network that came from one"),
    ],
)
def test_saved_networks_that_lie(tmp_path, data, words):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises((DataError, ConfigurationError), match=words):
        sb.load_dl4j(tmp_path / "file")


def test_a_missing_file(tmp_path):
    with pytest.raises(MissingDataError, match="there is no model at"):
        sb.load_dl4j(tmp_path / "model.zip")
    with pytest.raises(MissingDataError):
        sb.load_dl4j(tmp_path)


def test_graphs_that_cannot_be():
    good = graph(["a"], ["v"], u=(DENSE, ["a"]), v=(output(3, 2), ["u"]))
    assert not refused(pack(good, np.zeros(COUNT)))
    for change, words in (
        ({"topologicalOrderStr": ["a", "v", "u"]}, r"vertex 'v' takes \['u'\], which is not before it"),
        ({"topologicalOrderStr": ["a", "u"]}, "must name each input and vertex once"),
        ({"topologicalOrderStr": None}, "topologicalOrderStr is missing"),
        ({"networkOutputs": ["w"]}, "networkInputs and networkOutputs must name"),
        ({"vertexInputs": {"u": ["u"], "v": ["u"]}}, r"vertex 'u' takes \['u'\]"),
        ({"vertexInputs": {"u": [], "v": ["u"]}}, "takes nothing"),
    ):
        with pytest.raises(DataError, match=words):
            read(pack({**good, **change}, np.zeros(COUNT)))
    numbered = {**good, "topologicalOrderStr": None, "topologicalOrder": [0, 1, 2]}
    assert not refused(pack(numbered, np.zeros(COUNT)))


def test_options_of_the_whole_network():
    configuration = chain(DENSE, output(3, 2))
    configuration["confs"][1] = {**conf(output(3, 2)), "miniBatch": False}
    with pytest.raises(ConfigurationError, match="layer 1: miniBatch False is not read; scores and gradients"):
        read(pack(configuration, np.zeros(COUNT)))
    noisy = chain({**DENSE, "regularization": [{"@class": "org.nd4j.linalg.learning.regularization.Magic"}]})
    with pytest.raises(ConfigurationError, match=r"layer 0, regularization: the regularisation '.*Magic' is not read"):
        load_bytes(pack(noisy, np.zeros(15)))


def load_bytes(data):
    import fsspec

    with fsspec.open("memory://strombus-hostile/model.zip", "wb") as file:
        file.write(data)
    return sb.load_dl4j("memory://strombus-hostile/model.zip")
