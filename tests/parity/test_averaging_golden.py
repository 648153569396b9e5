"""Averaging agrees with Deeplearning4j 1.0.0-M2 on Spark, number by number (files in tests/golden/averaging)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.dl4j import record, trainings_of
from torch import nn

import strombus as sb
from strombus.interchange.dl4j.training import OptimizerFactory

GOLDEN = Path(__file__).parents[1] / "golden" / "averaging"

NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")
UPDATERS = {
    "sgd": record("Sgd", learningRate=0.1),
    "nesterovs": record("Nesterovs", learningRate=0.1, momentum=0.9),
    "adam": record("Adam", learningRate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8),
}


def array(entry):
    return np.asarray(entry["values"], np.float64).reshape(entry["shape"])


def parameters(table):
    """DL4J's table as our vector: weights transposed, since torch keeps (outputs, inputs)."""
    return np.concatenate([array(table[f"{i}_{n}"]).T.ravel() for i in (0, 1) for n in ("W", "b")])


@pytest.mark.parametrize("updater", UPDATERS)
@pytest.mark.parametrize("saved", ["save_updater", "no_updater"])
def test_parameters_after_each_fit(backend, updater, saved):
    golden = json.loads((GOLDEN / f"{updater}_{saved}.json").read_text())
    layer = {"iupdater": UPDATERS[updater]}
    network = sb.MultiLayerNetwork(
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double(),
        nn.CrossEntropyLoss(),
        OptimizerFactory(trainings_of(layer, layer), NAMES),
    )
    state = network.state()
    network.load_state(type(state)(parameters(golden["initial_param_table"]), state.buffers))
    batches = golden["minibatches_one_for_each_worker"]
    data = tuple(np.concatenate([array(batch[name]) for batch in batches]) for name in ("features", "labels"))
    master = sb.ParameterAveragingTrainingMaster(
        workers=golden["workers"],
        batch_size_per_worker=golden["batch_size_per_worker"],
        averaging_frequency=golden["averaging_frequency"],
        save_updater=golden["save_updater"],
        shuffle=False,
        rng_seed=0,
    )
    with sb.Trainer(network, master, backend=backend) as trainer:
        for after in golden["after_each_fit"]:
            trainer.fit(data, progress=False)
            got = network.state().parameters
            np.testing.assert_allclose(got, parameters(after["param_table"]), rtol=0, atol=1e-12)
            assert trainer.score == pytest.approx(after["score"], abs=1e-12)
            assert network.iteration == after["iteration_count"]
