"""Partitions in one process share one model, and merge to what one pass gives."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.networks import make_data, make_network
from sklearn.metrics import confusion_matrix
from torch import nn

from strombus.data import open_source
from strombus.evaluation import ROC, Evaluation, ROCMultiClass
from strombus.networks import MultiLayerNetwork, Network
from strombus.partitioning import DefaultRepartitioner
from strombus.types import DataSet
from strombus.worker.evaluating import evaluate_batches, evaluate_part, merge_metrics
from strombus.worker.models import Models
from strombus.worker.passes import Passes
from strombus.worker.scoring import ScoringWork


def test_many_partitions_in_threads_of_one_process_make_one_model(monkeypatch):
    made = []
    replica = Network.replica
    monkeypatch.setattr(Network, "replica", lambda network: made.append(network) or replica(network))
    data, network = make_data(130), make_network()
    passes = Passes(Models(network), 8)
    work = ScoringWork(network, open_source(data), 8, (Evaluation(), ROCMultiClass()), passes=passes)
    parts = DefaultRepartitioner(max_partitions=9).plan([130], workers=9, batch_size=8)
    assert len(parts) > 3
    with ThreadPoolExecutor(4) as threads:
        found = functools.reduce(merge_metrics, threads.map(functools.partial(evaluate_part, work), parts))
    assert made == [network]
    predicted = network.predict(data[0]).argmax(axis=1)
    assert found[0].accuracy() == pytest.approx(np.mean(predicted == data[1]))
    assert found[0].examples == found[1].get_roc(0).example_count() == 130
    assert all(metric.empty for metric in work.metrics)


def test_merging_leaves_both_sides_as_they_are():
    left, right = ROC(), ROC()
    left.add(np.array([0, 1]), np.array([0.2, 0.8]))
    right.add(np.array([1, 1]), np.array([0.2, 0.3]))
    before = left.to_dict(), right.to_dict()
    (merged,) = merge_metrics((left,), (right,))
    assert (left.to_dict(), right.to_dict()) == before
    assert merged.example_count() == 4


@pytest.mark.parametrize("ignored", [False, True])
def test_examples_weights_weigh_their_real_steps(ignored):
    """And what the loss ignores counts in no metric."""
    rng = np.random.default_rng(0)
    x, labels, weights = rng.normal(size=(7, 4, 5)), rng.integers(0, 3, (7, 5)), rng.uniform(0, 2, 7)
    steps = np.arange(5) < rng.integers(1, 6, (7, 1))
    labels[rng.random((7, 5)) < 0.3] = -100 if ignored else 0
    network = MultiLayerNetwork(nn.Conv1d(4, 3, 1).double(), nn.CrossEntropyLoss())
    metric = Evaluation()
    evaluate_batches(network.replica(), [DataSet(x, labels, steps, weights=weights)], [metric])
    counts = (steps * weights[:, None])[labels >= 0]
    predicted = network.predict(x).argmax(axis=1)[labels >= 0]
    expected = confusion_matrix(labels[labels >= 0], predicted, sample_weight=counts, labels=[0, 1, 2])
    np.testing.assert_allclose(metric.confusion_matrix, expected)
