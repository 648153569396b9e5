"""Scores of one network as Deeplearning4j 1.0.0-M2 computed them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from strombus.networks import MultiLayerNetwork, Replica
from strombus.types import DataSet

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/scoring/scoring.json").read_text())


def array(record: dict) -> np.ndarray:
    return np.array(record["values"], np.float64).reshape(record["shape"])


def golden_module() -> nn.Module:
    """The hidden layer is a tanh layer, the output a softmax whose cross entropy is the loss."""
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    table = {name: torch.from_numpy(array(record)) for name, record in GOLDEN["param_table"].items()}
    with torch.no_grad():
        for layer, number in ((module[0], 0), (module[2], 1)):
            layer.weight.copy_(table[f"{number}_W"].T)
            layer.bias.copy_(table[f"{number}_b"][0])
    return module


@pytest.fixture(scope="module")
def replica() -> Replica:
    network = MultiLayerNetwork(golden_module, nn.CrossEntropyLoss(), l1=GOLDEN["l1"], l2=GOLDEN["l2"], device="cpu")
    return network.replica()


@pytest.fixture(scope="module")
def data() -> DataSet:
    return DataSet(array(GOLDEN["features"]), array(GOLDEN["labels"]))


@pytest.mark.parametrize("batch", [1, 8, 23])
def test_mean_score_whatever_the_minibatch(replica: Replica, data: DataSet, batch: int) -> None:
    scores = [replica.score(data[start : start + batch]) for start in range(0, len(data), batch)]
    count = sum(count for _, count in scores)
    mean = sum(value * count for value, count in scores) / count + replica.regularization()
    assert count == 23
    assert mean == pytest.approx(GOLDEN["calculate_score_average_batch_8"], abs=1e-12)
    assert mean == pytest.approx(GOLDEN["calculate_score_average_batch_1"], abs=1e-12)
    assert mean * count == pytest.approx(GOLDEN["calculate_score_sum_batch_8"], abs=1e-11)


@pytest.mark.parametrize("regularization", [True, False])
def test_score_of_each_example(replica: Replica, data: DataSet, regularization: bool) -> None:
    name = "score_examples_with_regularization" if regularization else "score_examples_without_regularization"
    scores = replica.per_example(data, regularization=regularization)
    np.testing.assert_allclose(scores, GOLDEN[name], rtol=1e-7)


def test_score_by_key_is_that_of_the_example(replica: Replica, data: DataSet) -> None:
    keyed = GOLDEN["score_examples_keyed_with_regularization"]
    scores = {f"key-{i}": replica.per_example(data[i : i + 1], regularization=True)[0] for i in range(len(data))}
    assert scores.keys() == keyed.keys()
    for key, score in scores.items():
        assert score == pytest.approx(keyed[key], rel=1e-7)


def test_accuracy(replica: Replica, data: DataSet) -> None:
    hits = replica.forward(data).argmax(1).numpy() == data.labels.argmax(1)
    assert hits.mean() == pytest.approx(GOLDEN["evaluate_accuracy"], abs=1e-12)
