"""An imported network's updaters and its way back, in zips changed from one that DL4J wrote."""

from __future__ import annotations

import functools
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.dl4j import array_of, penalty, record, schedule
from torch import nn

import strombus as sb
from strombus.errors import ConfigurationError, DataError
from strombus.interchange.dl4j.ndarray import read_ndarray, write_ndarray

FOLDER = Path(__file__).parents[3] / "golden/dl4j/models"
ADAM = FOLDER / "mlp_adam.zip"


def entries(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(array):
    target = io.BytesIO()
    write_ndarray(target, array)
    return target.getvalue()


def changed(path, layers=(), epochs=0, **parts):
    """Write DL4J's network of two layers with Adam to `path`, with other settings of its layers and other entries."""
    found = entries(ADAM)
    configuration = {**json.loads(found["configuration.json"]), "epochCount": epochs}
    for conf, settings in zip(configuration["confs"], layers, strict=False):
        conf["layer"].update(settings)
    found["configuration.json"] = json.dumps(configuration).encode()
    found.update({name.replace("__", "."): data for name, data in parts.items()})
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in found.items():
            if data is not None:
                archive.writestr(name, data)
    return path


@pytest.fixture(scope="module")
def data():
    golden = json.loads(ADAM.with_suffix(".json").read_text())
    return sb.DataSet(array_of(golden["features"]), array_of(golden["labels"]))


def step(network, data):
    """Fit one minibatch here; return the loss, and each parameter's gradient, value before and value after."""
    before = {name: parameter.detach().clone() for name, parameter in network.module.named_parameters()}
    features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    loss = -(labels * network.module(features).log()).sum(1).mean()
    gradients = dict(zip(before, torch.autograd.grad(loss, list(network.module.parameters())), strict=True))
    replica = network.replica("cpu")
    result = replica.fit(data)
    network.load_state(replica.state())
    after = dict(network.module.named_parameters())
    return result.loss - loss.item(), {
        name: [tensor.detach().double().numpy() for tensor in (gradients[name], before[name], after[name])]
        for name in before
    }


def test_each_layer_is_trained_as_its_json_says(tmp_path, data):
    first = {
        "iupdater": record("Nesterovs", learningRate=0.1, momentum=0.5),
        "biasUpdater": record("Sgd", learningRate=0.4),
        "regularization": [penalty("L2Regularization", 0.3), penalty("L1Regularization", 0.02)],
        "gradientNormalization": "ClipL2PerLayer",
        "gradientNormalizationThreshold": 0.01,
    }
    second = {
        "iupdater": record("Sgd", learningRate=0.2),
        "regularization": [penalty("WeightDecay", 0.25, applyLR=True)],
        "regularizationBias": [penalty("L2Regularization", 0.5)],
    }
    network = sb.load_dl4j(changed(tmp_path / "model.zip", [first, second], updaterState__bin=None))
    extra, found = step(network, data)
    (w0, b0, w1, b1) = (found[f"layer{n}.{name}"] for n in (0, 1) for name in ("weight", "bias"))
    norm = np.sqrt((w0[0] ** 2).sum() + (b0[0] ** 2).sum())
    assert norm > 0.01
    g = w0[0] * 0.01 / norm + 0.3 * w0[1] + 0.02 * np.sign(w0[1])  # clipped first, then penalised
    np.testing.assert_allclose(w0[2], w0[1] - 0.1 * 1.5 * g, rtol=0, atol=1e-6)
    np.testing.assert_allclose(b0[2], b0[1] - 0.4 * b0[0] * 0.01 / norm, rtol=0, atol=1e-6)
    np.testing.assert_allclose(w1[2], w1[1] - 0.2 * w1[0] - 0.2 * 0.25 * w1[1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(b1[2], b1[1] - 0.2 * (b1[0] + 0.5 * b1[1]), rtol=0, atol=1e-6)
    squares = 0.15 * (w0[1] ** 2).sum() + 0.125 * (w1[1] ** 2).sum() + 0.25 * (b1[1] ** 2).sum()
    assert extra == pytest.approx(squares + 0.02 * abs(w0[1]).sum(), abs=1e-5)


def test_without_a_state_adam_starts_afresh_at_the_iteration_of_the_file(tmp_path, data):
    network = sb.load_dl4j(changed(tmp_path / "model.zip", updaterState__bin=None))
    assert network.iteration == 3
    _, found = step(network, data)
    for gradient, before, after in found.values():
        m, v = 0.1 * gradient, 0.001 * gradient**2
        rate = 0.01 * np.sqrt(1 - 0.999**4) / (1 - 0.9**4)
        np.testing.assert_allclose(after, before - rate * m / (np.sqrt(v) + 1e-8), rtol=0, atol=1e-6)


def test_schedules_go_on_at_the_counts_of_the_file(tmp_path, data):
    falling = schedule("Exponential", scheduleType="ITERATION", initialValue=0.1, gamma=0.5)
    by_epoch = schedule("Map", scheduleType="EPOCH", values={"0": 0.3, "2": 0.1})
    layers = [{"iupdater": record("Sgd", learningRateSchedule=one)} for one in (falling, by_epoch)]
    network = sb.load_dl4j(changed(tmp_path / "model.zip", layers, epochs=2, updaterState__bin=None))
    assert [group["lr"] for group in network.updater.groups] == [0.1 / 8, 0.1 / 8, 0.1, 0.1]
    _, found = step(network, data)
    gradient, before, after = found["layer0.weight"]
    np.testing.assert_allclose(after, before - 0.1 / 8 * gradient, rtol=0, atol=1e-7)
    network.save(tmp_path / "network.safetensors")
    for again in (network, sb.load_dl4j(tmp_path / "network.safetensors")):
        assert [group["lr"] for group in again.updater.groups] == [0.1 / 16, 0.1 / 16, 0.1, 0.1]
        assert again.updater.schedule == {"last_epoch": 4, "epoch": 2, "_step_count": 5}


STATE = read_ndarray(entries(ADAM)["updaterState.bin"])
BROKEN = [
    (written(STATE[:, :-1]), "model.zip, updaterState.bin has 85 numbers, the configuration's updaters keep 86"),
    (written(STATE.astype(np.int32)), "model.zip, updaterState.bin must be floating-point numbers, got int32"),
    (written(STATE)[:-1], r"model.zip, updaterState\.bin, byte"),
]


@pytest.mark.parametrize(("state", "message"), BROKEN)
def test_a_state_that_cannot_be_is_refused(tmp_path, state, message):
    path = changed(tmp_path / "model.zip", updaterState__bin=state)
    with pytest.raises(DataError, match=message):
        sb.load_dl4j(path)


def test_an_unknown_updater_matters_to_training_alone(tmp_path):
    path = changed(tmp_path / "model.zip", [{}, {"iupdater": record("Lion")}])
    with pytest.raises(ConfigurationError, match=r"layer 1, updater of W: the updater '.*Lion' is not read"):
        sb.load_dl4j(path)
    network = sb.load_dl4j(path, training=False)
    sb.save_dl4j(network, tmp_path / "back.zip")
    assert entries(tmp_path / "back.zip") == entries(path)
    assert sb.load_dl4j(path, optimizer=torch.optim.SGD).optimizer is torch.optim.SGD


def test_what_comes_from_the_file_is_no_option(tmp_path):
    path = changed(tmp_path / "model.zip")
    with pytest.raises(ConfigurationError, match=r"load_dl4j takes accumulate, .*, got foo, l2: all else comes from"):
        sb.load_dl4j(path, l2=0.5, foo=1)
    assert sb.load_dl4j(path, accumulate=2).accumulate == 2


def test_what_else_the_zip_had_goes_back(tmp_path):
    path = changed(tmp_path / "model.zip", notes__bin=b"anything")
    network = sb.load_dl4j(path)
    network.iteration, network.epoch = 1_000_000, 12
    sb.save_dl4j(network, tmp_path / "back.zip", updater=False)
    found = entries(tmp_path / "back.zip")
    assert (found["notes.bin"], "updaterState.bin" in found) == (b"anything", False)
    again = sb.load_dl4j(tmp_path / "back.zip")
    assert (again.iteration, again.epoch) == (1_000_000, 12)


def test_a_network_that_is_not_dl4js_is_not_written(tmp_path):
    path = tmp_path / "model.zip"
    own = sb.MultiLayerNetwork(nn.Linear(2, 2), nn.CrossEntropyLoss(), torch.optim.Adam)
    with pytest.raises(ConfigurationError, match="writes networks that load_dl4j has read"):
        sb.save_dl4j(own, path)
    network = sb.load_dl4j(ADAM, optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(ConfigurationError, match="give save_dl4j updater=False"):
        sb.save_dl4j(network, path)
    sb.save_dl4j(network, path, updater=False)
    network.module.layer1 = nn.Linear(5, 4)
    with pytest.raises(
        ConfigurationError, match=r"no longer describes the module: layer1\.bias, layer1\.weight differ"
    ):
        sb.save_dl4j(network, path)
    assert entries(path)["coefficients.bin"] == entries(ADAM)["coefficients.bin"]


def test_a_saved_network_goes_on_with_its_updaters(tmp_path, data):
    """network.save and load_dl4j of its file, in the midst of training."""
    network = sb.load_dl4j(ADAM)
    step(network, data)
    network.save(tmp_path / "network.safetensors")
    again = sb.load_dl4j(tmp_path / "network.safetensors")
    assert again.iteration == network.iteration == 4
    for one in (network, again):
        step(one, data)
    np.testing.assert_array_equal(again.state().parameters, network.state().parameters)
    sb.save_dl4j(again, tmp_path / "again.zip")
    sb.save_dl4j(network, tmp_path / "network.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "network.zip").read_bytes()
