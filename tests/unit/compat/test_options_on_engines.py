"""Every option of DL4J's builders in one fit on Spark and on Dask: each shows its effect there."""

from __future__ import annotations

import functools
import sys
from collections import Counter

import cloudpickle
import numpy as np
import pyspark.cloudpickle
import pytest
import torch
from helpers.hooks import SeenRows
from torch import nn

import strombus as sb
from strombus.compat import dl4j
from strombus.errors import StrombusWarning
from strombus.transport.zeromq import ZeroMQTransport

for pickler in (cloudpickle, pyspark.cloudpickle):
    pickler.register_pickle_by_value(sys.modules[__name__])

ROWS = 48


def take(start):
    """Return six rows; the first feature is the row's number."""
    numbers = np.arange(start, start + 6, dtype=np.float64)
    return sb.DataSet(np.stack([numbers, np.sin(numbers)], axis=1), np.cos(numbers)[:, None])


def make_network():
    torch.manual_seed(1)
    momentum = functools.partial(torch.optim.SGD, lr=1e-4, momentum=0.9)
    return sb.MultiLayerNetwork(nn.Linear(2, 1).double(), nn.MSELoss(), momentum)


def weights(network):
    return np.concatenate([value.detach().numpy().ravel() for value in network.module.parameters()])


def averaging(directory, hook):
    return (
        dl4j.ParameterAveragingTrainingMaster.Builder(2, 6)
        .batchSizePerWorker(4)
        .averagingFrequency(3)
        .aggregationDepth(3)
        .saveUpdater(False)
        .workerPrefetchNumBatches(2)
        .repartionData(dl4j.Repartition.NumPartitionsWorkersDiffers)
        .repartitionStrategy(dl4j.RepartitionStrategy.Balanced)
        .storageLevel(dl4j.StorageLevel.MEMORY_ONLY_SER())
        .storageLevelStreams(dl4j.StorageLevel.MEMORY_ONLY())
        .rddTrainingApproach(dl4j.RDDTrainingApproach.Export)
        .exportDirectory(str(directory))
        .rngSeed(5)
        .collectTrainingStats(True)
        .trainingHooks(hook)
        .build()
    )


def fitted(sc, master):
    rdd = sc.parallelize(range(0, ROWS, 6), 3).map(take)
    network = dl4j.SparkDl4jMultiLayer(sc, make_network(), master)
    network.fit(rdd)
    return rdd, network, network.getSparkTrainingStats().core


def test_each_option_of_averaging_acts(sc, tmp_path):
    seen, removed = SeenRows(), SeenRows()
    master = averaging(tmp_path, seen)
    master.addHook(removed)
    master.removeHook(removed)
    rdd, network, stats = fitted(sc, master)
    assert Counter(event.rank for event in stats.values("fit")) == {0: 6, 1: 6}  # 48 rows, 4 a minibatch
    assert len(stats.values("round")) == 2  # of 3 minibatches on each worker
    assert sorted(row for _, row in seen.rows) == list(range(ROWS))
    assert not removed.rows
    assert len(list(tmp_path.iterdir())) == 1
    core = sb.ParameterAveragingTrainingMaster(
        workers=2,
        batch_size_per_worker=4,
        averaging_frequency=3,
        save_updater=False,
        rng_seed=5,
        export_directory=str(tmp_path),
    )
    with sb.Trainer(make_network(), core, backend=sc) as trainer:
        trainer.fit(rdd, progress=False)
    np.testing.assert_allclose(weights(network.getNetwork()), weights(trainer.network), rtol=0, atol=1e-12)


def sharing(directory, hook, algorithm):
    builder = (
        dl4j.SharedTrainingMaster.Builder(6)
        .batchSizePerWorker(4)
        .updatesThreshold(1.0)
        .thresholdAlgorithm(algorithm)
        .residualPostProcessor(dl4j.ResidualClippingPostProcessor(1.0, 1))
        .workersPerNode(2)
        .debugLongerIterations(40)
        .encodingDebugMode(True)
        .transport(ZeroMQTransport)
        .workerPrefetchNumBatches(2)
        .repartitionData(dl4j.Repartition.Always)
        .repartitionStrategy(dl4j.RepartitionStrategy.SparkDefault)
        .repartitioner(dl4j.EqualRepartitioner())
        .storageLevel(dl4j.StorageLevel.MEMORY_AND_DISK())
        .rddTrainingApproach(dl4j.RDDTrainingApproach.Direct)
        .exportDirectory(str(directory))
        .rngSeed(5)
        .collectTrainingStats(True)
        .trainingHooks(hook)
    )
    with pytest.warns(StrombusWarning, match="has no effect") as found:
        builder.workerTogglePeriodicGC(True).workerPeriodicGCFrequency(5000)
    assert len(found) == 2
    return builder.build()


def test_each_option_of_sharing_acts(sc, tmp_path):
    hook = SeenRows()
    master = sharing(tmp_path, hook, dl4j.FixedThresholdAlgorithm(1e-3))
    _, network, stats = fitted(sc, master)
    assert sorted(row for _, row in hook.rows) == list(range(ROWS))
    assert Counter(event.rank for event in stats.values("fit")) == {0: 6, 1: 6}  # two members on the one host
    encoding = [event.values for event in stats.values("encoding")]
    assert {figures["threshold"] for figures in encoding} == {1e-3}
    largest = sorted(figures["largest"] for figures in encoding)
    assert max(largest[:-2]) <= 1e-3 * (1 + 1e-6)  # as in DL4J not in the first step of either member
    assert max(figures["clipped"] for figures in encoding) > 0
    steps = sorted(event.started for event in stats.values("fit") if event.rank == 0)
    assert min(np.diff(steps)) >= 0.04
    assert stats.totals("encode").figures["bytes"] > 0
    assert not list(tmp_path.iterdir())
    assert np.isfinite(weights(network.getNetwork())).all()
