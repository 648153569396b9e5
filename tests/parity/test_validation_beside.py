"""Validation beside training: the same figures, parameters and decisions as between epochs, while training goes on."""

from __future__ import annotations

import json
import logging
import threading

import numpy as np
import pytest
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.callbacks import BestScore
from strombus.executors.local import LocalExecutor

PATIENCE = 60.0
ROWS, EPOCHS = 60, 4


def master_of(kind, **options):
    options = {"workers": 1, "batch_size_per_worker": 4, "rng_seed": 0, **options}
    if kind == "averaging":
        return sb.ParameterAveragingTrainingMaster(averaging_frequency=2, **options)
    return sb.SharedTrainingMaster(max_staleness=0, updates_threshold=0.05, timeout=PATIENCE, **options)


class Watch(sb.Callback):
    """Keep what is told of each epoch, and the network's parameters at that moment."""

    def __init__(self, network):
        self.network, self.told = network, []

    def on_epoch_end(self, record):
        self.told.append((record.epoch, self.network.epoch, self.network.state().parameters.copy()))


def fit(backend, kind, mode, callbacks=(), **options):
    network = make_network("momentum")
    watch = Watch(network)
    with sb.Trainer(network, master_of(kind), backend=backend) as trainer:
        result = trainer.fit(
            make_data(ROWS),
            EPOCHS,
            make_data(40, seed=1),
            [watch, *callbacks],
            False,
            validation_mode=mode,
            **options,
        )
    return network.state().parameters, result, watch.told


@pytest.fixture(
    params=["local", pytest.param("dask", marks=pytest.mark.dask), pytest.param("spark", marks=pytest.mark.spark)]
)
def backend(request):
    """Two slots each, of which one trains."""
    if request.param == "local":
        return request.getfixturevalue("local_executors")[2]
    if request.param == "dask":
        return request.getfixturevalue("dask_client")
    pytest.importorskip("pyspark", reason="pyspark is not installed: the extra 'spark' brings it")
    from helpers.spark import spark_context

    return spark_context()


@pytest.mark.parametrize("kind", ["averaging", "sharing"])
def test_figures_networks_and_result_are_those_of_inline_validation(backend, kind, caplog):
    expected, there, told = fit(backend, kind, "inline")
    found, here, heard = fit(backend, kind, "async")
    np.testing.assert_array_equal(found, expected)
    assert not caplog.records
    assert [record.epoch for record in here.epochs] == [1, 2, 3, 4]
    for mine, wanted in zip(here.epochs, there.epochs, strict=True):
        assert mine.validation["accuracy"] == wanted.validation["accuracy"]
        assert mine.validation["score"] == pytest.approx(wanted.validation["score"], rel=1e-12)
        assert (mine.iteration, mine.examples, mine.score) == (wanted.iteration, wanted.examples, wanted.score)
    for (epoch, count, parameters), (_, _, wanted) in zip(heard, told, strict=True):
        assert epoch == count
        np.testing.assert_array_equal(parameters, wanted)
