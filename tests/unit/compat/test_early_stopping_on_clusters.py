"""Early stopping under DL4J's names ends on Spark as on Dask, with both masters, for both kinds of network."""

from __future__ import annotations

import functools
import sys

import cloudpickle
import numpy as np
import pyspark.cloudpickle
import pytest
import torch
from torch import nn

import strombus as sb
from strombus.callbacks import IterationCondition
from strombus.compat import dl4j

for pickler in (cloudpickle, pyspark.cloudpickle):
    pickler.register_pickle_by_value(sys.modules[__name__])

RNG = np.random.default_rng(1)
FEATURES = RNG.normal(size=(64, 4)).astype(np.float32)
LABELS = FEATURES @ np.array([[1.0], [2.0], [-1.0], [0.5]], np.float32)


def take(several, start):
    features, labels = FEATURES[start : start + 8], LABELS[start : start + 8]
    return sb.MultiDataSet([features], [labels]) if several else sb.DataSet(features, labels)


def averaging():
    return dl4j.ParameterAveragingTrainingMaster.Builder(2, 8).batchSizePerWorker(8).averagingFrequency(2).build()


def sharing():
    master = dl4j.SharedTrainingMaster.Builder(8).batchSizePerWorker(8).updatesThreshold(1e-3).build()
    master.setNumWorkers(2)
    return master


def make_network(several, lr):
    torch.manual_seed(0)
    kind = sb.ComputationGraph if several else sb.MultiLayerNetwork
    return kind(nn.Linear(4, 1), nn.MSELoss(), functools.partial(torch.optim.SGD, lr=lr))


class Told(dl4j.EarlyStoppingListener):
    def __init__(self):
        self.calls = []

    def onStart(self, esConfig, net):
        self.calls.append("start")

    def onEpoch(self, epochNum, score, esConfig, net):
        self.calls.append(epochNum)

    def onCompletion(self, esResult):
        self.calls.append("end")


def trained(sc, master, *conditions, several=False, average=True, lr=0.1, told=None):
    """Train until a condition ends it; return the result, and what measures the score."""
    train, test = (sc.parallelize(range(0, rows, 8), 2).map(functools.partial(take, several)) for rows in (64, 32))
    kind = dl4j.SparkLossCalculatorComputationGraph if several else dl4j.SparkDataSetLossCalculator
    calculator = kind(test, average, sc)
    builder = dl4j.EarlyStoppingConfiguration.Builder().scoreCalculator(calculator)
    within = [one for one in conditions if isinstance(one, IterationCondition)]
    builder.iterationTerminationConditions(within)
    builder.epochTerminationConditions([one for one in conditions if one not in within])
    trainer = dl4j.SparkEarlyStoppingGraphTrainer if several else dl4j.SparkEarlyStoppingTrainer
    network = make_network(several, lr)
    return trainer(sc, master, builder.build(), network, train, *filter(None, [told])).fit(), calculator


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize(("make_master", "several"), [(averaging, True), (sharing, False)])
def test_the_best_network_is_the_one_that_had_the_score(sc, make_master, several, average):
    told = Told()
    condition = dl4j.MaxEpochsTerminationCondition(3)
    result, calculator = trained(sc, make_master(), condition, several=several, average=average, told=told)
    assert result.getTerminationReason() is dl4j.TerminationReason.EpochTerminationCondition
    assert result.getTotalEpochs() == 3
    assert set(result.getScoreVsEpoch()) == {1, 2, 3}
    assert result.getBestModelEpoch() == 3
    assert result.getBestModelScore() == min(result.getScoreVsEpoch().values())
    assert calculator.calculateScore(result.getBestModel()) == pytest.approx(result.getBestModelScore(), rel=1e-5)
    assert told.calls == ["start", 1, 2, 3, "end"]


@pytest.mark.parametrize("make_master", [averaging, sharing])
def test_a_condition_within_an_epoch_ends_it_there(sc, make_master):
    limit = dl4j.MaxScoreIterationTerminationCondition(1e-6)  # which the first loss is above
    result, _ = trained(sc, make_master(), dl4j.MaxEpochsTerminationCondition(1000), limit)
    assert result.getTerminationReason() is dl4j.TerminationReason.IterationTerminationCondition
    assert "1e-06" in result.getTerminationDetails()
    assert result.getTotalEpochs() < 1000
