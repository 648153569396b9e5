"""Training goes on where DL4J 1.0.0-M2 left it: one more fit of its minibatch, and the way back into its zip."""

from __future__ import annotations

import functools
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.dl4j import array_of

import strombus as sb
from strombus.interchange.dl4j.models import coefficients_of

FOLDER = Path(__file__).parents[1] / "golden/dl4j/models"
UPDATERS = [
    "mlp_adadelta",
    "mlp_adagrad",
    "mlp_adam",
    "mlp_adamax",
    "mlp_amsgrad",
    "mlp_nadam",
    "mlp_nesterovs",
    "mlp_noop",
    "mlp_rmsprop",
    "mlp_sgd",
]
OTHERS = [
    "bidirectional_lstm_global_pooling",
    "graph_residual_conv",
    "graph_two_in_two_out_merge",
    "graves_lstm",
    "lenet_batch_norm",
    "lstm_rnn_output_masks",
    "mlp_float64",
    "simple_rnn_last_step",
]
DRAWN = ["embedding", "mlp_l1_l2_weight_decay_dropout"]
"""Their dropout draws other numbers than DL4J's: one more fit is not the same."""


def golden_of(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def data_of(golden):
    """Return the minibatch that DL4J fitted."""
    parts = [golden[key] for key in ("features", "labels", "features_mask", "labels_mask")]
    if golden["kind"] == "ComputationGraph":
        return sb.MultiDataSet(*(part and [array_of(one) for one in part] for part in parts))
    return sb.DataSet(*map(array_of, parts))


def predict(network, data):
    masks = data.features_masks if network.several else data.features_mask
    outputs = network.predict(data.features, masks)
    return outputs if network.several else [outputs]


def master_of(kind, examples):
    options = {"workers": 1, "batch_size_per_worker": examples, "shuffle": False, "last_batch": "keep"}
    if kind == "averaging":
        return sb.ParameterAveragingTrainingMaster(**options)
    return sb.SharedTrainingMaster(encoder="dense", timeout=60, **options)


def entries(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    ("name", "master"),
    [*((name, "averaging") for name in UPDATERS + OTHERS), *((name, "sharing") for name in UPDATERS)],
)
def test_one_more_fit(local_executors, tmp_path, name, master):
    golden, network = golden_of(name), sb.load_dl4j(FOLDER / f"{name}.zip")
    data, before = data_of(golden), network.iteration
    with sb.Trainer(network, master_of(master, data.examples), backend=local_executors[1]) as trainer:
        trainer.fit(data, progress=False)
    wanted = golden["output_after_one_more_fit"]
    for got, want in zip(predict(network, data), wanted if network.several else [wanted], strict=True):
        np.testing.assert_allclose(got, array_of(want), rtol=0, atol=1e-10 if name == "mlp_float64" else 1e-5)
    if "params_after_one_more_fit" in golden:
        got = coefficients_of(network.module, network.dl4j.records)
        np.testing.assert_allclose(got, array_of(golden["params_after_one_more_fit"]).ravel(), rtol=0, atol=1e-5)
    assert (network.iteration, network.epoch) == (before + 1, 1)
    # what comes back from a zip of ours is what went in
    sb.save_dl4j(network, tmp_path / "back.zip")
    again, text = sb.load_dl4j(tmp_path / "back.zip"), entries(tmp_path / "back.zip")["configuration.json"]
    assert json.loads(text) == {**json.loads(network.dl4j.configuration), "iterationCount": before + 1, "epochCount": 1}
    check_same(again, network)


def check_same(network, other):
    state, wanted = network.state(), other.state()
    assert (state.iteration, network.epoch) == (wanted.iteration, other.epoch)
    np.testing.assert_array_equal(state.parameters, wanted.parameters)
    for name, array in wanted.buffers.items():
        np.testing.assert_array_equal(state.buffers[name], array)
    assert state.updater.tensors.keys() == wanted.updater.tensors.keys()
    for name, array in wanted.updater.tensors.items():
        np.testing.assert_array_equal(state.updater.tensors[name], array)
    assert state.updater.groups == wanted.updater.groups


@pytest.mark.parametrize("name", UPDATERS + OTHERS + DRAWN)
def test_an_untouched_network_goes_back_byte_for_byte(tmp_path, name):
    path = FOLDER / f"{name}.zip"
    sb.save_dl4j(sb.load_dl4j(path), tmp_path / "back.zip")
    assert entries(tmp_path / "back.zip") == entries(path)
    assert sorted(one.stem for one in FOLDER.glob("*.zip")) == sorted(UPDATERS + OTHERS + DRAWN)


def halves(data):
    rows = np.split(np.arange(data.examples), 2)
    return [sb.DataSet(data.features[half], data.labels[half]) for half in rows]


@pytest.mark.parametrize("name", ["mlp_amsgrad", "mlp_rmsprop"])
def test_two_workers_average_parameters_and_states(dask_client, name):
    """One step of each worker from DL4J's state, and the mean of both by hand."""
    network = sb.load_dl4j(FOLDER / f"{name}.zip")
    data = data_of(golden_of(name))
    states = []
    for half in halves(data):
        replica = network.replica("cpu")
        replica.fit(half)
        states.append(replica.state())
    master = sb.ParameterAveragingTrainingMaster(
        workers=2, batch_size_per_worker=4, averaging_frequency=1, shuffle=False, save_updater=True
    )
    with sb.Trainer(network, master, backend=dask_client) as trainer:
        trainer.fit(data, progress=False)
    found = network.state()
    np.testing.assert_allclose(found.parameters, np.mean([s.parameters for s in states], 0), rtol=0, atol=1e-7)
    assert found.iteration == 4
    for key, array in found.updater.tensors.items():
        both = [state.updater.tensors[key] for state in states]
        wanted = both[0] if key.endswith(".step") else np.mean(both, 0)
        np.testing.assert_allclose(array, wanted, rtol=1e-6, atol=1e-9, err_msg=key)


class Cut(Exception):
    """What ends a fit in the middle."""


class CutOff(sb.Callback):
    """End a fit in its second epoch."""

    def on_round(self, progress):
        if progress.epoch == 1:
            raise Cut


@pytest.mark.parametrize("name", ["mlp_adamax", "mlp_adagrad"])
def test_a_fit_that_was_cut_off_goes_on(local_executors, tmp_path, name):
    """From DL4J's state over a checkpoint to the state of a fit that nobody disturbed, bit for bit."""
    data, networks = data_of(golden_of(name)), []
    checkpoint = sb.CheckpointConfig(every="1step", max_share=1)
    for folder, cuts in [("cut", True), ("uncut", False)]:
        for callbacks in [[CutOff()], []] if cuts else [[]]:
            network = sb.load_dl4j(FOLDER / f"{name}.zip")
            master = sb.ParameterAveragingTrainingMaster(
                workers=2, batch_size_per_worker=2, averaging_frequency=1, rng_seed=7
            )
            with sb.Trainer(network, master, backend=local_executors[1]) as trainer:
                arguments = {"name": "one", "storage_path": tmp_path / folder, "checkpoint": checkpoint}
                fit = functools.partial(trainer.fit, data, epochs=3, progress=False, callbacks=callbacks, **arguments)
                if callbacks:
                    with pytest.raises(Cut):
                        fit()
                else:
                    fit()
        networks.append(network)
    check_same(*networks)
    assert networks[0].epoch == 3
