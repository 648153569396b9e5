"""Networks that DL4J 1.0.0-M2 trained and wrote: the same outputs, scores and parameters here, from the same zips."""

from __future__ import annotations

import functools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.dl4j import array_of

import strombus as sb
from strombus.executors.local import LocalExecutor
from strombus.interchange.dl4j.models import coefficients_of

GOLDEN = Path(__file__).parents[3] / "golden/dl4j/models"
MODELS = (
    "bidirectional_lstm_global_pooling",
    "embedding",
    "graph_residual_conv",
    "graph_two_in_two_out_merge",
    "graves_lstm",
    "lenet_batch_norm",
    "lstm_rnn_output_masks",
    "mlp_adadelta",
    "mlp_adagrad",
    "mlp_adam",
    "mlp_adamax",
    "mlp_amsgrad",
    "mlp_float64",
    "mlp_l1_l2_weight_decay_dropout",
    "mlp_nadam",
    "mlp_nesterovs",
    "mlp_noop",
    "mlp_rmsprop",
    "mlp_sgd",
    "simple_rnn_last_step",
)


def load(name, **options):
    return sb.load_dl4j(GOLDEN / f"{name}.zip", device="cpu", **options)


def results(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def arrays(record):
    """Return one array for each input or output."""
    if record is None:
        return None
    return [array_of(one) for one in (record if isinstance(record, list) else [record])]


def data_of(golden):
    names = ("features", "labels", "features_mask", "labels_mask")
    columns = [arrays(golden[name]) for name in names]
    if golden["kind"] == "ComputationGraph":
        return sb.MultiDataSet(*columns)
    return sb.DataSet(*(None if column is None else column[0] for column in columns))


def tolerance(name):
    return 1e-10 if name == "mlp_float64" else 1e-5


def test_the_list_is_whole():
    assert sorted(path.stem for path in GOLDEN.glob("*.zip")) == sorted(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_output(name):
    golden, network = results(name), load(name)
    graph = golden["kind"] == "ComputationGraph"
    assert isinstance(network, sb.ComputationGraph if graph else sb.MultiLayerNetwork)
    features, masks = arrays(golden["features"]), arrays(golden["features_mask"])
    found = network.predict(features, masks) if graph else [network.predict(features[0], masks and masks[0])]
    for output, wanted in zip(found, arrays(golden["output"]), strict=True):
        assert output.dtype == wanted.dtype
        np.testing.assert_allclose(output, wanted, rtol=0, atol=tolerance(name))


@pytest.mark.parametrize("name", MODELS)
def test_scores(name):
    golden, network = results(name), load(name)
    replica, data = network.replica(), data_of(golden)
    score, count = replica.score(data)
    assert count == data.examples
    wanted = golden["score_with_regularization"]
    assert score + network.regularization() == pytest.approx(wanted, rel=tolerance(name))
    for regularized in (True, False):
        key = f"score_examples_{'with' if regularized else 'without'}_regularization"
        if key in golden:  # DL4J's graphs were not asked
            each = replica.per_example(data, regularized)
            np.testing.assert_allclose(each, array_of(golden[key])[:, 0], rtol=max(1e-7, tolerance(name)))


@pytest.mark.parametrize("name", MODELS)
def test_parameters(name):
    golden, network = results(name), load(name)
    records = network.dl4j.records
    vector = coefficients_of(network.module, records)
    table = {r.table_key: vector[r.offset : r.offset + r.size].reshape(r.shape, order=r.order.upper()) for r in records}
    assert set(table) == set(golden["param_table"])
    for key, record in golden["param_table"].items():
        wanted = array_of(record)
        assert table[key].dtype == wanted.dtype
        assert (table[key] == wanted).all(), key
    assert len(vector) == golden["number_of_parameters"]
    assert network.iteration == golden.get("trained_iterations", 3)


@pytest.mark.parametrize(
    "name",
    [
        "bidirectional_lstm_global_pooling",
        "graph_two_in_two_out_merge",
        "graves_lstm",
        "mlp_float64",
        "mlp_sgd",
        "simple_rnn_last_step",
    ],
)
def test_gradients_by_one_step_of_plain_descent(name):
    golden = results(name)
    rate = next(record.updater["learningRate"] for record in load(name).dl4j.records)
    network = load(name, optimizer=functools.partial(torch.optim.SGD, lr=rate))
    replica, data = network.replica(), data_of(golden)
    replica.fit(data)
    found = replica.forward(data)
    for output, wanted in zip(
        found if network.several else [found], arrays(golden["output_after_one_more_fit"]), strict=True
    ):
        np.testing.assert_allclose(output, wanted, rtol=0, atol=tolerance(name))


def test_running_statistics_follow_as_in_dl4j():
    golden = results("lenet_batch_norm")
    network = load("lenet_batch_norm", optimizer=functools.partial(torch.optim.SGD, lr=0.0))
    replica = network.replica()
    replica.fit(data_of(golden))
    vector, wanted = (
        coefficients_of(replica.module, network.dl4j.records),
        array_of(golden["params_after_one_more_fit"]),
    )
    for record in network.dl4j.records:
        if record.role == "statistic":
            place = slice(record.offset, record.offset + record.size)
            np.testing.assert_allclose(vector[place], wanted[0, place], atol=1e-6, err_msg=record.table_key)


@pytest.mark.parametrize("name", ["lenet_batch_norm", "graph_two_in_two_out_merge", "mlp_l1_l2_weight_decay_dropout"])
def test_a_saved_network_needs_no_zip(name, tmp_path):
    golden = results(name)
    make = functools.partial(load, name, optimizer=functools.partial(torch.optim.SGD, lr=0.05))
    network, data = make(), data_of(golden)
    with sb.Trainer(network, sb.ParameterAveragingTrainingMaster(batch_size_per_worker=2), LocalExecutor(1)) as trainer:
        trainer.fit(data)
    network.save(tmp_path / "network")
    for path, other in ((tmp_path / "network", None), (GOLDEN / f"{name}.zip", tmp_path / "network")):
        again = sb.load_dl4j(path, optimizer=functools.partial(torch.optim.SGD, lr=0.05), device="cpu")
        if other is not None:
            again.load(other)
        assert (again.iteration, again.epoch) == (network.iteration, network.epoch)
        assert again.dl4j.configuration == network.dl4j.configuration
        assert (again.state().parameters == network.state().parameters).all()
        assert again.regularization() == network.regularization()
    copy = pickle.loads(pickle.dumps(network))
    assert copy.replica().score(data) == network.replica().score(data)


def test_what_is_printed_has_kinds_sizes_and_counts():
    network = load("lenet_batch_norm")
    printed = str(network.module)
    assert "(layer0): Convolution(\n    nin=2, nout=4, kernelSize=[3, 3], stride=[1, 1], padding=[0, 0]," in printed
    assert "(layer2): Subsampling(kernelSize=[2, 2], stride=[2, 2], " in printed
    assert "poolingType=MAX" in printed
    assert "(layer6): Output(\n    nin=6, nout=3, W[6, 3], b[1, 3]" in printed
    counted = sum(array_of(one).size for one in results("lenet_batch_norm")["param_table"].values())
    assert f"DL4J counts {counted} parameters" in network.summary()
    assert "(s): ElementWise(op=Add)" in str(load("graph_two_in_two_out_merge").module)
    assert "DL4J" not in load("mlp_adam").summary()


def test_what_else_was_in_the_zip_is_kept(tmp_path):
    network = load("mlp_adam")
    assert network.dl4j.configuration.startswith("{")
    assert network.dl4j.updater_state is None  # an optimizer has it
    untrained = sb.load_dl4j(GOLDEN / "mlp_adam.zip", training=False)
    assert len(untrained.dl4j.updater_state) > 43 * 2 * 4
    record = next(record for record in network.dl4j.records if record.table_key == "1_b")
    assert (record.name, record.shape, record.offset, record.size, record.role) == (
        "layer1.bias",
        (1, 3),
        40,
        3,
        "bias",
    )
    assert record.updater["@class"].endswith(".Adam")
    assert load("mlp_sgd").dl4j.updater_state is None
