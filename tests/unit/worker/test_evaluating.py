"""Partitions in one process share one model, and merge to what one pass gives."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.networks import make_data, make_network

from strombus.data import open_source
from strombus.evaluation import ROC, Evaluation, ROCMultiClass
from strombus.networks import Network
from strombus.partitioning import DefaultRepartitioner
from strombus.worker.evaluating import evaluate_part, merge_metrics
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
