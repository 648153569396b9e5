"""What users get wrong: one error each, which says what was wanted and what came."""

from __future__ import annotations

import os
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import make_data, make_mlp, make_mlp32, make_network
from helpers.programs import dask_programs
from torch import nn

import strombus as sb
from strombus.errors import (
    ConfigurationError,
    DataError,
    ExecutorError,
    MissingDataError,
    NonFiniteError,
    StrombusError,
    TaskError,
    UnfinishedExportError,
)
from strombus.executors.local import LocalExecutor
from strombus.testing.faults import block_import

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Locked(nn.Module):
    """A module whose instances cannot be pickled, but whose class can."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3).double()
        self.guard = threading.Lock()

    def forward(self, features):
        return self.layer(features)


class Breaks(nn.Module):
    """A module whose own code raises where the first feature is large."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3).double()

    def forward(self, features):
        if features[:, 0].max() > 100:
            raise KeyError("a table that is not there")
        return self.layer(features)


@pytest.fixture(scope="module")
def one():
    with LocalExecutor(1) as executor:
        yield executor


@pytest.fixture(scope="module")
def two(local_executors):
    return local_executors[2]


def fit(backend, data, network=None, validation=None, **options):
    options = {"workers": 2, "batch_size_per_worker": 8, "rng_seed": 0, "shuffle": False, **options}
    master = sb.ParameterAveragingTrainingMaster(**options)
    with sb.Trainer(network or make_network(), master, backend) as trainer:
        return trainer.fit(data, validation=validation, progress=False)


# -- data ----------------------------------------------------------------------------------------


def test_a_missing_path(one, tmp_path):
    for path in (tmp_path / "none.zarr", str(tmp_path / "none.zarr"), [str(tmp_path / "none.zarr")]):
        with pytest.raises(MissingDataError, match=r"no data at .*none\.zarr"):
            fit(one, path)
    with pytest.raises(MissingDataError, match="no data at"):
        fit(one, make_data(20), validation=tmp_path / "none.zarr")
    with pytest.raises(FileNotFoundError), sb.Trainer(make_network(), backend=one) as trainer:
        trainer.evaluate(tmp_path / "none.zarr")


def test_an_unfinished_export(one, tmp_path):
    sb.data.export(make_data(20), tmp_path / "d.zarr", progress=False)
    (tmp_path / "d.zarr" / "zarr.json").unlink()
    with pytest.raises(UnfinishedExportError, match=r"d\.zarr.*did not finish"):
        fit(one, tmp_path / "d.zarr")
    with pytest.raises(UnfinishedExportError, match="overwrite=True"):
        sb.data.export(make_data(20), tmp_path / "d.zarr", progress=False)


def test_labels_of_another_length(one):
    features, labels = make_data(20)
    with pytest.raises(DataError, match="same number"):
        fit(one, (features, labels[:19]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["cat", "dog"]), r"labels must be a regular numeric array, got texts; .*numpy\.unique"),
        (np.array(["2024-01-01"] * 2, "datetime64[D]"), "labels must be a regular numeric array, got dates"),
        (np.array([1, "2"], object), "labels must be a regular numeric array, got objects"),
    ],
)
def test_labels_that_are_no_numbers(one, labels, message):
    with pytest.raises(DataError, match=message):
        sb.Trainer(make_network(), backend=one).evaluate((make_data(2)[0], labels))


def test_more_arrays_than_a_data_set_has(one):
    features, labels = make_data(20)
    with pytest.raises(DataError, match=r"\(features, labels\[, features_mask.*got 5 values"):
        sb.Trainer(make_network(), backend=one).evaluate((features, labels, None, None, None))


def test_what_is_no_data(one):
    for data in (3, {"features": 1}, object(), b""):
        with pytest.raises(DataError, match=r"data must be a path or URI.*got "):
            fit(one, data)


@pytest.mark.parametrize("slots", [1, 2])
def test_a_nan_in_the_data(request, slots):
    features, labels = make_data(64)
    features[40, 2] = np.nan
    with pytest.raises(TaskError, match=r"NaN or infinite values \(features 1\)") as caught:
        fit(request.getfixturevalue({1: "one", 2: "two"}[slots]), (features, labels))
    assert isinstance(caught.value.__cause__, NonFiniteError)
    assert caught.value.part == 1
    assert f"part 1 failed on {os.uname().nodename}:" in str(caught.value)


def test_a_learning_rate_that_blows_up_is_not_blamed_on_the_data(one):
    network = sb.MultiLayerNetwork(make_mlp, nn.MSELoss(), lambda p: torch.optim.SGD(p, lr=1e200))
    features = make_data(64)[0]
    with pytest.raises(TaskError, match="lower the learning rate"):
        fit(one, (features, features[:, :3]), network)


def test_features_of_another_width(one):
    features, labels = make_data(20)
    with pytest.raises(TaskError, match=r"Sequential failed on features \(8, 5\) float64.*6x8") as caught:
        fit(one, (features[:, :5], labels))
    assert isinstance(caught.value.__cause__, DataError)
    with sb.Trainer(make_network(), backend=one) as trainer, pytest.raises(TaskError, match=r"features \(20, 5\)"):
        trainer.predict(features[:, :5])


@pytest.mark.parametrize("labels", [np.zeros((20, 2)), np.zeros((20, 3, 2)), np.full(20, 3), np.full(20, -7)])
def test_labels_that_do_not_fit_the_loss(one, labels):
    with pytest.raises(TaskError, match="labels") as caught:
        fit(one, (make_data(20)[0], labels))
    assert isinstance(caught.value.__cause__, DataError)


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("workers", 0),
        ("workers", -1),
        ("batch_size_per_worker", 0),
        ("averaging_frequency", 0),
        ("aggregation_depth", 0),
        ("rng_seed", -1),
        ("repartition_data", "Sometimes"),
        ("weighting", "rows"),
        ("workers", "many"),
    ],
)
def test_a_value_that_cannot_work_is_named_with_its_option(option, value):
    with pytest.raises(ConfigurationError) as caught:
        sb.ParameterAveragingTrainingMaster(**{option: value})
    assert repr(value) in str(caught.value)
    assert option in str(caught.value)


def test_an_option_that_does_not_exist_lists_those_that_do():
    with pytest.raises(ConfigurationError, match=r"no option 'worker'; known: .*averaging_frequency.*workers"):
        sb.ParameterAveragingTrainingMaster(worker=2)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("numWorker", "workers"), ("batch_size", "batch_size_per_worker"), ("update_threshold", "updates_threshold")],
)
def test_an_option_that_is_misspelt_is_guessed(given, meant):
    with pytest.raises(ConfigurationError, match=rf"no option '{given}'; known: .*; did you mean {meant}\?$"):
        sb.SharedTrainingMaster(**{given: 2})


def test_an_option_like_no_other_is_not_guessed():
    with pytest.raises(ConfigurationError, match=r"no option 'colour'; known: .*training_hooks$"):
        sb.ParameterAveragingTrainingMaster(colour="red")


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (sb.Callback(), "callbacks must be a sequence of Callback, got Callback: put it into a list"),
        ([sb.Callback], "a callback must be a strombus.Callback, got the class Callback itself"),
        ([print], "got builtin_function_or_method"),
    ],
)
def test_what_is_no_callback(one, callbacks, message):
    with pytest.raises(ConfigurationError, match=message):
        sb.Trainer(make_network(), sb.ParameterAveragingTrainingMaster(), one).fit(make_data(4), callbacks=callbacks)


def test_fewer_than_one_epoch_no_master_no_optimizer(one):
    data = make_data(20)
    master = sb.ParameterAveragingTrainingMaster(workers=1)
    with pytest.raises(ConfigurationError, match=r"needs a training master.*ParameterAveragingTrainingMaster"):
        sb.Trainer(make_network(), backend=one).fit(data)
    with pytest.raises(ConfigurationError, match=r"needs an optimizer.*functools\.partial"):
        sb.Trainer(sb.MultiLayerNetwork(make_mlp, nn.CrossEntropyLoss()), master, one).fit(data)
    with pytest.raises(ConfigurationError, match="no loss"):
        fit(one, data, sb.MultiLayerNetwork(make_mlp, optimizer=torch.optim.SGD))


def own_loss(module, minibatch):
    return nn.functional.cross_entropy(module(minibatch.features), minibatch.labels)


@pytest.mark.parametrize("call", [sb.Trainer.fit, sb.Trainer.explain])
def test_what_cannot_be_trained_is_refused_before_anything_is(one, call):
    data, stepped = make_data(20), sb.MultiLayerNetwork(make_mlp, optimizer=torch.optim.SGD, training_step=own_loss)
    master = sb.ParameterAveragingTrainingMaster(workers=1)
    trainer = sb.Trainer(make_network(), master, one)
    for options, message in (
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number, got float 1.5"),
        ({"epochs": "2"}, "epochs must be a whole number, got str '2'"),
        ({"epochs": True}, "epochs must be a whole number, got bool True"),
        ({"steps_per_epoch": 2.5}, "steps_per_epoch must be a whole number, or None for all .*, got float 2.5"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            call(trainer, data, **options)
    with pytest.raises(DataError, match="the data has features alone"):
        call(trainer, data[0])
    with pytest.raises(DataError, match="the validation data has features alone"):
        call(trainer, data, validation=data[0])
    with pytest.raises(ConfigurationError, match="validation data is scored by the network's loss"):
        call(sb.Trainer(stepped, master, one), data, validation=data)
    assert (trainer.network.iteration, stepped.iteration) == (0, 0)


def test_numpys_numbers_are_numbers(one):
    trainer = sb.Trainer(make_network(), sb.ParameterAveragingTrainingMaster(workers=1, batch_size_per_worker=4), one)
    result = trainer.fit(make_data(20), np.int64(2), steps_per_epoch=np.int32(3), progress=False)
    assert (len(result.epochs), result.minibatches) == (2, 6)


@pytest.mark.parametrize(
    ("kind", "weight"), [(sb.ParameterAveragingTrainingMaster, 0.0), (sb.SharedTrainingMaster, 1e-300)]
)
def test_weights_that_count_nothing(one, kind, weight):
    features, labels = make_data(20)
    network = sb.MultiLayerNetwork(make_mlp32, nn.CrossEntropyLoss(), torch.optim.SGD)
    trainer = sb.Trainer(network, kind(workers=1, batch_size_per_worker=4, shuffle=False), one)
    nothing = sb.DataSet(features, labels, weights=np.full(20, weight))
    with pytest.raises(DataError, match="all 20 examples of epoch 1 are masked or have no weight"):
        trainer.fit(nothing, progress=False)
    with pytest.raises(DataError, match="all of the 20 examples are masked or have no weight"):
        trainer.calculate_score(nothing)
    few = sb.DataSet(features, labels, weights=np.arange(20) == 3)  # one minibatch of five counts
    assert trainer.fit(few, progress=False).minibatches == 5


def test_what_is_no_network_and_no_master():
    with pytest.raises(ConfigurationError, match=r"got Linear; wrap an nn\.Module"):
        sb.Trainer(nn.Linear(2, 1))
    with pytest.raises(ConfigurationError, match="master must be a TrainingMaster or None, got str"):
        sb.Trainer(make_network(), "parameter_averaging")
    with pytest.raises(ConfigurationError, match="got the class SharedTrainingMaster itself"):
        sb.Trainer(make_network(), sb.SharedTrainingMaster)


# -- backends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["sparc", 7, None, LocalExecutor, "http://127.0.0.1:80"])
def test_what_is_no_backend(backend):
    with pytest.raises(ConfigurationError, match=r'backend must be one of "auto", "dask", "local", "spark".*; got '):
        fit(backend, make_data(20))


def test_no_scheduler_at_the_address():
    started = time.monotonic()
    with pytest.raises(ExecutorError, match=r"no Dask scheduler answered at tcp://127\.0\.0\.1:9 .*dask scheduler"):
        fit("tcp://127.0.0.1:9", make_data(20))
    assert time.monotonic() - started < 15


def locked_factory():
    """Return a function that holds a lock and makes a module."""
    guard = threading.Lock()

    def make():
        with guard:
            return make_mlp()

    return make


@pytest.mark.parametrize("backend", ["two", pytest.param("dask_client", marks=pytest.mark.dask)])
def test_a_module_that_cannot_be_pickled(request, backend):
    backend = request.getfixturevalue(backend)
    with pytest.raises(ConfigurationError, match=r"picklable.*network\._factory.*_thread\.lock"):
        fit(backend, make_data(20), sb.MultiLayerNetwork(locked_factory(), nn.CrossEntropyLoss(), torch.optim.SGD))
    made_there = sb.MultiLayerNetwork(Locked, nn.CrossEntropyLoss(), torch.optim.SGD)
    assert fit(backend, make_data(20), made_there).examples == 20


@pytest.mark.parametrize("backend", ["one", "two", pytest.param("dask_client", marks=pytest.mark.dask)])
def test_a_module_that_raises_on_a_worker(request, backend):
    features, labels = make_data(64)
    features[50, 0] = 1000.0
    network = sb.MultiLayerNetwork(Breaks, nn.CrossEntropyLoss(), torch.optim.SGD)
    with pytest.raises(TaskError, match=r"part 1 failed on .*KeyError.*a table that is not there") as caught:
        fit(request.getfixturevalue(backend), (features, labels), network)
    assert caught.value.part == 1
    assert "in forward" in caught.value.traceback
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.dask
def test_a_cluster_without_strombus(tmp_path):
    blocked = {"PYTHONPATH": str(block_import("strombus", tmp_path))}
    with dask_programs(tmp_path, 1, blocked) as (address, programs):
        with pytest.raises(ExecutorError, match=r"not installed on worker tcp://.*pip install strombus"):
            fit(address, make_data(20))
        assert all(program.poll() is None for program in programs.running.values())


# -- an engine's data on another engine ----------------------------------------------------------


@pytest.mark.spark
@pytest.mark.parametrize("approach", ["Export", "Direct"])
def test_an_rdd_needs_spark(one, approach):
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from helpers.spark import spark_context

    rdd = spark_context().parallelize([sb.DataSet(*make_data(10))], 1)
    with pytest.raises(StrombusError, match=r"held by spark.*backend=.spark."):
        fit(one, rdd, rdd_training_approach=approach)


@pytest.mark.spark
@pytest.mark.dask
def test_collections_of_dask_and_spark_do_not_mix(dask_client):
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    import dask.bag
    from helpers.spark import spark_context

    objects = [sb.DataSet(*make_data(10))]
    with pytest.raises(ConfigurationError, match=r"held by spark.*backend=.spark."):
        fit(dask_client, spark_context().parallelize(objects, 1))
    with pytest.raises(ConfigurationError, match=r"RDD.*got engine 'dask'"):
        fit(spark_context(), dask.bag.from_sequence(objects))


def test_every_error_is_strombuss_own(one):
    """A program that catches `StrombusError` catches them all."""
    for data in ("none.zarr", 3, (np.zeros((3, 6)), np.zeros(2))):
        with pytest.raises(StrombusError):
            fit(one, data)
