"""An RDD that is fitted epoch by epoch is exported once; its files go when they are no longer needed."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import sys

import cloudpickle
import dask.bag
import numpy as np
import pyspark.cloudpickle
import pytest
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.compat import dl4j
from strombus.executors.local import LocalExecutor

for pickler in (cloudpickle, pyspark.cloudpickle):
    pickler.register_pickle_by_value(sys.modules[__name__])

FEATURES, LABELS = make_data(40)


def take(counter, start):
    counter.add(1)
    return sb.DataSet(FEATURES[start : start + 10], LABELS[start : start + 10])


def make_master(directory):
    options = {"batch_size_per_worker": 5, "averaging_frequency": 2, "rng_seed": 3, "workers": 2}
    return dl4j.ParameterAveragingTrainingMaster(export_directory=str(directory), **options)


def weights(network):
    return np.concatenate([value.detach().numpy().ravel() for value in network.module.parameters()])


def test_each_epoch_reads_the_export_of_the_first(sc, tmp_path):
    counter = sc.accumulator(0)
    rdd = sc.parallelize(range(0, 40, 10), 2).map(functools.partial(take, counter))
    other = sc.parallelize(range(0, 20, 10), 2).map(functools.partial(take, sc.accumulator(0)))
    master = make_master(tmp_path)
    network = dl4j.SparkDl4jMultiLayer(sc, make_network(), master)
    kept, computed = [], []
    for data in (rdd, rdd, other, rdd):
        network.fit(data)
        kept.append(set(tmp_path.iterdir()))
        computed.append(counter.value)
    assert [len(found) for found in kept] == [1, 1, 1, 1]
    assert kept[0] == kept[1]
    assert kept[1] != kept[2] != kept[3]
    assert kept[3] != kept[0]
    assert computed[:2] == [4, 4]
    with sb.Trainer(make_network(), make_master(tmp_path), backend=sc) as trainer:
        for data in (rdd, rdd, other, rdd):
            trainer.fit(data, progress=False)
    np.testing.assert_allclose(weights(network.getNetwork()), weights(trainer.network), atol=1e-12)
    assert master.deleteTempFiles(sc)
    assert not list(tmp_path.iterdir())
    network.fit(rdd)
    assert len(list(tmp_path.iterdir())) == 1
    network.close()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def bag():
    return dask.bag.from_sequence([sb.DataSet(FEATURES[:20], LABELS[:20]), sb.DataSet(FEATURES[20:], LABELS[20:])])


@pytest.mark.dask
def test_what_is_kept_goes_with_its_wrapper_alone(dask_client, bag, tmp_path):
    master = make_master(tmp_path)
    one, two = (dl4j.SparkDl4jMultiLayer(dask_client, make_network(), master) for _ in range(2))
    one.fit(bag)
    two.fit(bag)
    assert len(list(tmp_path.iterdir())) == 2
    del one
    gc.collect()
    (left,) = tmp_path.iterdir()
    two.fit(bag)
    assert list(tmp_path.iterdir()) == [left]


@pytest.mark.dask
def test_a_copy_of_the_master_keeps_nothing(dask_client, bag, tmp_path):
    master = make_master(tmp_path)
    network = dl4j.SparkDl4jMultiLayer(dask_client, make_network(), master)
    network.fit(bag)
    for copied in (pickle.loads(pickle.dumps(master)), copy.deepcopy(master), type(master).fromJson(master.toJson())):
        assert copied == master
        copied.deleteTempFiles()
    assert len(list(tmp_path.iterdir())) == 1
    master.setCollectTrainingStats(True)
    master.deleteTempFiles()
    assert not list(tmp_path.iterdir())


def test_what_is_no_collection_is_read_anew(tmp_path):
    master = make_master(tmp_path)
    with LocalExecutor(1) as executor:
        network = dl4j.SparkDl4jMultiLayer(executor, make_network(), master)
        objects = [sb.DataSet(FEATURES, LABELS)]
        network.fit(objects)
        objects[0] = sb.DataSet(FEATURES[:10], LABELS[:10])
        network.fit(objects)
    assert network.getNetwork().iteration == 4 + 1
    assert not list(tmp_path.iterdir())
