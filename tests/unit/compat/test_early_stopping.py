"""Early stopping under DL4J's names ends as its conditions say and returns the best network."""

from __future__ import annotations

import functools
import math
from contextlib import closing

import numpy as np
import pytest
import torch
from torch import nn

import strombus as sb
from strombus.compat import dl4j
from strombus.errors import ConfigurationError
from strombus.executors.local import LocalExecutor

RNG = np.random.default_rng(1)
FEATURES = RNG.normal(size=(64, 4)).astype(np.float32)
TRAIN = FEATURES, FEATURES @ np.array([[1.0], [2.0], [-1.0], [0.5]], np.float32)
TEST = TRAIN[0][:20] + 0.1, TRAIN[1][:20]


class Told(dl4j.EarlyStoppingListener):
    def __init__(self):
        self.calls = []

    def onStart(self, esConfig, net):
        self.calls.append("start")

    def onEpoch(self, epochNum, score, esConfig, net):
        self.calls.append((epochNum, score))

    def onCompletion(self, esResult):
        self.calls.append(esResult)


def network(lr=0.1):
    torch.manual_seed(0)
    optimizer = functools.partial(torch.optim.SGD, lr=lr)
    return sb.MultiLayerNetwork(nn.Linear(4, 1), nn.MSELoss(), optimizer, l2=0.1)


@pytest.fixture(scope="module")
def executor():
    with closing(LocalExecutor(1)) as executor:
        yield executor


def trained(executor, builder, net, *rest, average=True):
    configuration = builder.scoreCalculator(dl4j.SparkDataSetLossCalculator(TEST, average, executor)).build()
    master = dl4j.ParameterAveragingTrainingMaster.Builder(64).batchSizePerWorker(16).build()
    return dl4j.SparkEarlyStoppingTrainer(executor, master, configuration, net, TRAIN, *rest).fit()


def conditions(*epoch):
    return dl4j.EarlyStoppingConfiguration.Builder().epochTerminationConditions(*epoch)


@pytest.mark.parametrize("average", [True, False])
def test_epochs_are_evaluated_and_the_best_network_is_the_one_that_had_the_score(executor, average):
    told = Told()
    builder = conditions(dl4j.MaxEpochsTerminationCondition(4)).evaluateEveryNEpochs(2)
    result = trained(executor, builder, network(), told, average=average)
    assert result.getTotalEpochs() == 4
    assert result.getTerminationReason() is dl4j.TerminationReason.EpochTerminationCondition
    assert "MaxEpochsTerminationCondition" in result.getTerminationDetails()
    assert set(result.getScoreVsEpoch()) == {2, 4}
    assert result.getBestModelScore() == min(result.getScoreVsEpoch().values())
    again = dl4j.SparkDataSetLossCalculator(TEST, average, executor).calculateScore(result.getBestModel())
    assert again == pytest.approx(result.getBestModelScore(), rel=1e-5)
    assert told.calls == ["start", *sorted(result.getScoreVsEpoch().items()), result]


def test_a_loss_that_blows_up_ends_it_within_an_epoch(executor):
    builder = conditions(dl4j.MaxEpochsTerminationCondition(50)).iterationTerminationConditions(
        [dl4j.MaxScoreIterationTerminationCondition(1e3), dl4j.InvalidScoreIterationTerminationCondition()]
    )
    result = trained(executor, builder, network(lr=5.0))
    assert result.getTerminationReason() is dl4j.TerminationReason.IterationTerminationCondition
    assert result.getTotalEpochs() < 10


def test_scores_that_do_not_improve_end_it(executor):
    result = trained(executor, conditions([dl4j.ScoreImprovementEpochTerminationCondition(3)]), network(lr=0.0))
    assert (result.getTotalEpochs(), result.getBestModelEpoch()) == (4, 1)


def test_time_has_a_unit():
    assert dl4j.MaxTimeIterationTerminationCondition(2, dl4j.TimeUnit.MINUTES).seconds == 120
    assert dl4j.MaxTimeIterationTerminationCondition(2).ends(2.5, 0.0)
    with pytest.raises(ConfigurationError, match="maxTimeUnit must be one of"):
        dl4j.MaxTimeIterationTerminationCondition(2, "FORTNIGHTS")
    assert dl4j.BestScoreEpochTerminationCondition(0.5).score == 0.5
    assert dl4j.MaxScoreIterationTerminationCondition(1.0).ends(0.0, math.nan)


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigurationError, match="needs a condition"):
        dl4j.EarlyStoppingConfiguration.Builder().build()
    with pytest.raises(ConfigurationError, match="of the kind EpochCondition"):
        conditions(dl4j.InvalidScoreIterationTerminationCondition())
    configuration = conditions(dl4j.MaxEpochsTerminationCondition(1)).build()
    with pytest.raises(ConfigurationError, match="needs scoreCalculator"):
        configuration.callback()
    with pytest.raises(ConfigurationError, match="trains a ComputationGraph, got MultiLayerNetwork"):
        dl4j.SparkEarlyStoppingGraphTrainer("local", None, configuration, network(), TRAIN)
