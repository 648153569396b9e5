"""Networks that DL4J wrote train, score and predict on every backend alike."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.dl4j import array_of

import strombus as sb

GOLDEN = Path(__file__).parents[1] / "golden/dl4j/models"


def load(name, **options):
    return sb.load_dl4j(GOLDEN / f"{name}.zip", device="cpu", **options)


def data_of(name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    columns = [golden[key] for key in ("features", "labels", "features_mask", "labels_mask")]
    if golden["kind"] == "ComputationGraph":
        return sb.MultiDataSet(*([array_of(one) for one in c] if c else None for c in columns))
    return sb.DataSet(*map(array_of, columns))


@pytest.fixture(scope="session")
def first_seen():
    """What came of a network on the backend that ran first."""
    return {}


@pytest.mark.parametrize("name", ["lstm_rnn_output_masks", "graph_two_in_two_out_merge"])
def test_a_network_of_dl4j_trains_and_predicts(backend, name, first_seen):
    network, data = load(name), data_of(name)
    before = network.replica().score(data)[0]
    master = sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=2, rng_seed=3)
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(data, epochs=2, progress=False)
        score = trainer.calculate_score(data)
        each = trainer.score_examples(data, include_regularization_terms=False)
    assert result.examples == 2 * data.examples
    assert score == pytest.approx(network.replica().score(data)[0], rel=1e-6)
    assert score < before
    np.testing.assert_allclose(each, network.replica().per_example(data), rtol=1e-5)
    expected = first_seen.setdefault(name, network.state().parameters)
    np.testing.assert_allclose(network.state().parameters, expected, rtol=0, atol=1e-6)


def test_the_plain_loop_gives_the_same(local_executors):
    descends = functools.partial(torch.optim.SGD, lr=0.05)
    network, data, loop = load("mlp_float64", optimizer=descends), data_of("mlp_float64"), load("mlp_float64").module
    descent = torch.optim.SGD(loop.parameters(), lr=0.05)
    features, labels = torch.tensor(data.features), torch.tensor(data.labels)
    for _ in range(4):
        descent.zero_grad()
        torch.nn.functional.mse_loss(loop(features), labels).backward()  # DL4J's MSE is a mean over the outputs
        descent.step()
    master = sb.ParameterAveragingTrainingMaster(workers=1, batch_size_per_worker=len(data), shuffle=False)
    sb.Trainer(network, master, backend=local_executors[1]).fit(data, epochs=4, progress=False)
    for mine, other in zip(network.module.parameters(), loop.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_shared_training_and_metrics(local_executors):
    network, data = load("lenet_batch_norm"), data_of("lenet_batch_norm")
    master = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=2, encoder="dense")
    with sb.Trainer(network, master, backend=local_executors[2]) as trainer:
        trainer.fit(data, epochs=3, validation=data, progress=False)
        accuracy = trainer.evaluate(data).accuracy()
        rocs = trainer.evaluate_roc_multi_class(data)
    wanted = network.predict(data.features).argmax(1) == data.labels.argmax(1)
    assert accuracy == wanted.mean()
    assert 0 <= rocs.calculate_auc(0) <= 1
    steps, masked = load("lstm_rnn_output_masks"), data_of("lstm_rnn_output_masks")
    with sb.Trainer(steps, backend=local_executors[1]) as trainer:
        found = trainer.evaluate_regression(masked).mean_squared_error(0)
    kept = masked.labels_mask.astype(bool)
    errors = (steps.predict(masked.features, masked.features_mask) - masked.labels)[:, 0][kept]
    assert found == pytest.approx((errors**2).mean(), rel=1e-5)
