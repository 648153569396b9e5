"""A driver program gives the same network on Spark and on Dask: only the line that makes the context differs."""

from __future__ import annotations

import functools
import sys

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.compat.dl4j import (
    DaskSparkContext,
    ParameterAveragingTrainingMaster,
    RDDTrainingApproach,
    SharedTrainingMaster,
    SparkDl4jMultiLayer,
)

pytest.importorskip("pyspark", reason="pyspark is not installed")

import pyspark.cloudpickle
from helpers.spark import spark_context

for pickler in (cloudpickle, pyspark.cloudpickle):
    pickler.register_pickle_by_value(sys.modules[__name__])


def averaging():
    return (
        ParameterAveragingTrainingMaster.Builder(2, 10)
        .batchSizePerWorker(6)
        .averagingFrequency(2)
        .rddTrainingApproach(RDDTrainingApproach.Direct)
        .rngSeed(11)
        .build()
    )


def sharing():
    master = SharedTrainingMaster.Builder(10).batchSizePerWorker(6).updatesThreshold(1e-2).rngSeed(11).build()
    return SharedTrainingMaster(**{**dict(master), "workers": 2, "max_staleness": 0, "timeout": 60})


def program(sc, master):
    """Train two epochs, evaluate, and score by key."""
    features, labels = make_data(60)
    rows = sc.parallelize(range(0, 60, 10), 2).map(functools.partial(take, features, labels, 10)).cache()
    network = SparkDl4jMultiLayer(sc, make_network("adam"), master)
    for _ in range(2):
        network.fit(rows)
    singles = sc.parallelize(range(5), 2).map(lambda i: (f"row {i}", take(features, labels, 1, i)))
    scores = network.scoreExamples(singles, False).collectAsMap()
    outputs = network.feedForwardWithKey(singles.mapValues(lambda row: row.features), 4).collectAsMap()
    parameters = torch.nn.utils.parameters_to_vector(network.getNetwork().module.parameters())
    accuracy = network.evaluate(rows).accuracy()
    return parameters.detach().numpy(), accuracy, scores, outputs


def take(features, labels, size, start):
    return sb.DataSet(features[start : start + size], labels[start : start + size])


@pytest.mark.dask
@pytest.mark.spark
@pytest.mark.parametrize("make_master", [averaging, sharing])
def test_the_same_program_gives_the_same_network(dask_client, make_master):
    with DaskSparkContext(dask_client) as sc:
        parameters, accuracy, scores, outputs = program(sc, make_master())
    there = program(spark_context(), make_master())
    np.testing.assert_allclose(there[0], parameters, rtol=0, atol=1e-6)
    assert accuracy > 0.5
    assert there[1] == accuracy
    assert list(there[2]) == list(scores)
    for key in scores:
        assert there[2][key] == pytest.approx(scores[key], abs=1e-6)
        np.testing.assert_allclose(there[3][key], outputs[key], atol=1e-6)
