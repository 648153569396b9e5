"""A fit that was cut off and run again comes to what it would have come to, and trains every row once an epoch."""

from __future__ import annotations

import functools
import itertools
import json
import sys
from pathlib import Path

import cloudpickle
import fsspec
import numpy as np
import pytest
import torch
from helpers.hooks import SeenRows
from helpers.networks import make_batch_norm, make_data, make_mlp, make_network

import strombus as sb
from strombus import CheckpointConfig
from strombus.callbacks import MaxEpochs, ScoreImprovement
from strombus.errors import RunError, StrombusWarning

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS, EPOCHS = 67, 3  # six rounds an epoch
EVERY_STEP = CheckpointConfig(every="1step", max_share=1)
HALVED = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=4, gamma=0.5)


def data_of():
    """Rows whose first feature numbers them."""
    features, labels = make_data(ROWS)
    features[:, 0] = np.arange(ROWS)
    return features, labels


class Cut(Exception):
    """What ends a fit where a test wants it."""


class CutOff(sb.Callback):
    """End the fit after a round, or with None for its number, after an epoch."""

    def __init__(self, epoch, number):
        self.when = epoch, number

    def on_round(self, progress):
        if (progress.epoch, progress.round) == self.when:
            raise Cut

    def on_epoch_end(self, record):
        if (record.epoch - 1, None) == self.when:
            raise Cut


class Line(sb.Callback):
    """Keep, with each checkpoint, the rows that were trained by then: those of the line of attempts that counts."""

    def __init__(self):
        self.hook = SeenRows()

    @property
    def rows(self):
        return self.hook.rows

    def state(self):
        return {"rows": list(self.rows)}

    def load_state(self, state):
        self.hook.rows = [tuple(one) for one in state["rows"]]


def fit(
    backend,
    path,
    cut=None,
    checkpoint=EVERY_STEP,
    *,
    network=None,
    data=None,
    callbacks=(),
    epochs=EPOCHS,
    accept_changes=False,
    progress=False,
    validation=None,
    **options,
):
    """Fit with a name; return network, the rows on the line that counts, and the result."""
    line = Line()
    options = {"workers": 3, "batch_size_per_worker": 4, "averaging_frequency": 1, "rng_seed": 7, **options}
    master = sb.ParameterAveragingTrainingMaster(training_hooks=[line.hook], **options)
    network = network or make_network("momentum", make_batch_norm, schedule=HALVED)
    with sb.Trainer(network, master, backend=backend) as trainer:
        arguments = {
            "name": "one",
            "storage_path": path,
            "checkpoint": checkpoint,
            "accept_changes": accept_changes,
            "callbacks": [line, *callbacks, *([] if cut is None else [CutOff(*cut)])],
        }
        if cut is None:
            result = trainer.fit(data or data_of(), epochs, validation, progress=progress, **arguments)
            return network, line.rows, result
        with pytest.raises(Cut):
            trainer.fit(data or data_of(), epochs, validation, progress=progress, **arguments)
        return network, line.rows, None


def check_same(found, expected):
    """Compare parameters, buffers, optimizer, counts and rows, bit for bit."""
    (network, rows, result), (wanted, wanted_rows, wanted_result) = found, expected
    state, other = network.state(), wanted.state()
    np.testing.assert_array_equal(state.parameters, other.parameters)
    for name, array in other.buffers.items():
        np.testing.assert_array_equal(state.buffers[name], array, err_msg=name)
    assert state.updater.tensors.keys() == other.updater.tensors.keys()
    for name, array in other.updater.tensors.items():
        np.testing.assert_array_equal(state.updater.tensors[name], array, err_msg=name)
    assert state.updater.groups == other.updater.groups
    assert state.updater.schedule == other.updater.schedule
    assert (state.iteration, network.epoch, network.score) == (other.iteration, wanted.epoch, wanted.score)
    assert rows == wanted_rows
    assert (result.examples, result.minibatches) == (wanted_result.examples, wanted_result.minibatches)
    assert [without_time(one) for one in result.epochs] == [without_time(one) for one in wanted_result.epochs]


def without_time(record):
    return record.epoch, record.iteration, record.examples, record.minibatches, record.score, record.validation


def check_rows(rows, epochs=EPOCHS):
    """Every row once in each epoch, whoever trained it."""
    for epoch in range(epochs):
        assert sorted(row for _, row in rows[epoch * ROWS : (epoch + 1) * ROWS]) == list(range(ROWS))
    assert len(rows) == epochs * ROWS


def metrics_of(path):
    """Read metrics.jsonl, but for times and places."""
    files, target = fsspec.core.url_to_fs(f"{path}/one/metrics.jsonl")
    timed = ("time", "seconds", "examples_per_second", "where")
    lines = [json.loads(line) for line in files.cat_file(target).splitlines()]
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


@pytest.fixture(scope="module")
def uncut(local_executors, tmp_path_factory):
    """The fit of these options that nobody disturbed, and its directory."""

    @functools.cache
    def make(**options):
        path = tmp_path_factory.mktemp("uncut")
        changed = {name: make() for name, make in options.items() if name == "network"}
        return fit(local_executors[1], path, checkpoint=None, **{**options, **changed}), path

    return make


# -- on every backend ----------------------------------------------------------------------------


def test_cut_off_three_times(backend, uncut, tmp_path):
    """After the first round, twice within one epoch, at an epoch's end; run again each time."""
    for cut in [(0, 0), (1, 1), (1, 3), (1, None)]:
        fit(backend, tmp_path / "cut", cut)
    found = fit(backend, tmp_path / "cut")
    expected = fit(backend, tmp_path / "uncut", checkpoint=None)
    check_same(found, expected)
    check_rows(found[1])
    assert metrics_of(tmp_path / "cut") == metrics_of(tmp_path / "uncut")


def test_with_other_workers(backend, tmp_path):
    fit(backend, tmp_path, (0, 2))
    fit(backend, tmp_path, (0, 3), workers=2)
    fit(backend, tmp_path, (1, 1), workers=5)
    network, rows, result = fit(backend, tmp_path, workers=1)
    check_rows(rows)
    assert result.examples == ROWS * EPOCHS
    assert [record.examples for record in result.epochs] == [ROWS] * EPOCHS
    assert network.epoch == EPOCHS
    assert {rank for rank, _ in rows[ROWS * 2 :]} == {0}


# -- what a checkpoint has to hold ---------------------------------------------------------------


@pytest.mark.parametrize("approach", ["Export", "Direct"])
@pytest.mark.parametrize("save_updater", [True, False])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_optimizers(local_executors, uncut, tmp_path, optimizer, save_updater, approach):
    network = functools.partial(make_network, optimizer, make_mlp)
    options = {"save_updater": save_updater, "rdd_training_approach": approach, "workers": 2, "averaging_frequency": 2}
    for cut in [(0, 1), (2, 0)]:
        fit(local_executors[1], tmp_path, cut, network=network(), **options)
    found = fit(local_executors[1], tmp_path, network=network(), **options)
    check_same(found, uncut(network=network, **options)[0])


@pytest.mark.parametrize("options", [{"shuffle": False}, {"last_batch": "keep"}, {"repartition_data": "Never"}])
def test_orders(local_executors, uncut, tmp_path, options):
    fit(local_executors[1], tmp_path, (1, 2), **options)
    check_same(fit(local_executors[1], tmp_path, **options), uncut(**options)[0])


def test_a_seed_that_nobody_gave(local_executors, tmp_path):
    fit(local_executors[1], tmp_path, (1, 2), rng_seed=None)
    seed = json.loads((tmp_path / "one" / "config.json").read_text())["seed"]
    found = fit(local_executors[1], tmp_path, rng_seed=None)
    assert found[2].seed == seed
    check_rows(found[1])
    check_same(found, fit(local_executors[1], tmp_path / "again", rng_seed=seed))


@pytest.mark.parametrize("cut", [(0, 3), (1, None), (2, 2)])
def test_early_stopping(local_executors, tmp_path, cut):
    def stopping():
        return sb.EarlyStopping([ScoreImprovement(2, 0.05), MaxEpochs(8)], restore_best=True)

    def run(path, cut=None):
        callback = stopping()
        options = {"epochs": 9, "validation": make_data(30, 5), "callbacks": [callback], "workers": 2}
        found = fit(local_executors[1], path, cut, CheckpointConfig(every="5steps", max_share=1), **options)
        return found, callback.result

    run(tmp_path / "cut", cut)
    found, result = run(tmp_path / "cut")
    expected, wanted = run(tmp_path / "uncut")
    check_same(found, expected)
    assert (result.reason, result.scores, result.best_epoch) == (wanted.reason, wanted.scores, wanted.best_epoch)
    assert found[2].stopped_by == expected[2].stopped_by == "EarlyStopping"


def test_lines_at_a_uri(local_executors, uncut):
    path = "memory://resumed"
    for cut in [(0, 3), (1, 2), (2, None)]:
        fit(local_executors[1], path, cut)
    check_same(fit(local_executors[1], path), uncut()[0])
    assert metrics_of(path) == metrics_of(uncut()[1])


def test_a_callback_that_comes_or_goes_takes_nobodys_state(local_executors, uncut, tmp_path):
    fit(local_executors[1], tmp_path, (1, 2), progress=True)
    found = fit(local_executors[1], tmp_path, callbacks=[sb.Callback()])
    check_same(found, uncut()[0])
    assert metrics_of(tmp_path) == metrics_of(uncut()[1])


def test_lines_of_an_attempt_without_a_checkpoint_are_forgotten(local_executors, uncut, tmp_path):
    fit(local_executors[1], tmp_path, (0, 4), CheckpointConfig(every="1epoch"))
    check_same(fit(local_executors[1], tmp_path), uncut()[0])
    assert metrics_of(tmp_path) == metrics_of(uncut()[1])


def test_the_same_network_in_the_same_process(local_executors, uncut, tmp_path):
    network = make_network("momentum", make_batch_norm, schedule=HALVED)
    fit(local_executors[1], tmp_path, (1, None), network=network)
    assert network.epoch == 2
    check_same(fit(local_executors[1], tmp_path, network=network), uncut()[0])


# -- where the rows lie --------------------------------------------------------------------------


def objects_of(data):
    features, labels = data
    cuts = itertools.pairwise([0, 5, 6, 38, 45, 61, ROWS])
    return [sb.DataSet(features[a:b], labels[a:b]) for a, b in cuts]


@pytest.fixture(params=[pytest.param("dask", marks=pytest.mark.dask), pytest.param("spark", marks=pytest.mark.spark)])
def collected(request):
    """An engine, and the rows as its own collection."""
    if request.param == "dask":
        import dask.bag

        bag = dask.bag.from_sequence(objects_of(data_of()), npartitions=3)
        return request.getfixturevalue("dask_client"), bag
    session = request.getfixturevalue("spark_session")
    return session, session.sparkContext.parallelize(objects_of(data_of()), 3)


def test_from_an_engines_memory(collected, tmp_path):
    backend, data = collected
    options = {"data": data, "rdd_training_approach": "Direct", "workers": 2}
    expected = fit(backend, tmp_path / "uncut", checkpoint=None, **options)
    for cut in [(0, 2), (1, 0), (1, 3)]:
        fit(backend, tmp_path, cut, **options)
    with pytest.raises(RunError, match=r"none of its checkpoints \(.*dealt to 2 workers, not 3\); give data"):
        fit(backend, tmp_path, **{**options, "workers": 3})
    found = fit(backend, tmp_path, **options)
    check_same(found, expected)
    check_rows(found[1])


@pytest.mark.dask
def test_from_an_engines_memory_with_other_workers_from_the_epoch_before(dask_client, tmp_path):
    import dask.bag

    options = {"data": dask.bag.from_sequence(objects_of(data_of()), npartitions=3), "rdd_training_approach": "Direct"}
    fit(dask_client, tmp_path, (1, 1), CheckpointConfig(every="1step", max_share=1, keep=9), **options)
    _, rows, _ = fit(dask_client, tmp_path, **{**options, "workers": 2})
    check_rows(rows)


@pytest.mark.parametrize("directory", [None, "elsewhere"])
def test_what_is_exported_once_stays_for_those_that_go_on(local_executors, tmp_path, directory):
    """Data that comes in another order, as after a shuffle, changes nothing."""
    objects = objects_of(data_of())
    elsewhere = directory and tmp_path / directory
    expected = fit(
        local_executors[1], tmp_path / "uncut", checkpoint=None, data=iter(objects), export_directory=elsewhere
    )
    exports = tmp_path.glob if directory is None else elsewhere.glob
    for cut in [(0, 2), (1, 3)]:
        fit(local_executors[1], tmp_path, cut, data=iter(objects), export_directory=elsewhere)
        assert len([*exports("**/data.zarr")]) == 1
        objects = objects[::-1]
    found = fit(local_executors[1], tmp_path, data=iter(objects), export_directory=elsewhere)
    check_same(found, expected)
    check_rows(found[1])
    assert [*exports("**/data.zarr")] == []


@pytest.mark.dask
def test_on_another_backend(local_executors, dask_client, uncut, tmp_path):
    fit(local_executors[2], tmp_path, (1, 1))
    fit(dask_client, tmp_path, (1, 4))
    network, rows, result = fit(local_executors[1], tmp_path)
    (wanted, wanted_rows, wanted_result), _ = uncut()
    np.testing.assert_allclose(network.state().parameters, wanted.state().parameters, rtol=0, atol=1e-12)
    assert (rows, result.examples) == (wanted_rows, wanted_result.examples)


# -- what has changed ----------------------------------------------------------------------------


def test_other_options_are_refused_or_accepted(local_executors, tmp_path):
    fit(local_executors[1], tmp_path, (1, 1))
    changed = {"batch_size_per_worker": 8, "averaging_frequency": 2, "epochs": 2}
    with pytest.raises(
        RunError,
        match=r"master.averagingFrequency was 1, is 2 now; master.batchSizePerWorker was 4, is 8 now; epochs was 3, "
        r"is 2 now\); take another name, or go on with accept_changes=True",
    ):
        fit(local_executors[1], tmp_path, **changed)
    with pytest.warns(StrombusWarning, match="goes on with master.averagingFrequency was 1, is 2 now"):
        _, rows, result = fit(local_executors[1], tmp_path, accept_changes=True, **changed)
    check_rows(rows, 2)
    assert [record.examples for record in result.epochs] == [ROWS] * 2
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert (config["master"]["batchSizePerWorker"], config["epochs"], config["seed"]) == (8, 2, 7)


def test_another_network_is_refused_or_does_not_fit(local_executors, tmp_path):
    fit(local_executors[1], tmp_path, (1, 1))
    other = functools.partial(make_network, "adam", make_mlp)
    with pytest.raises(RunError, match=r"network.module was .*BatchNorm1d.*, is .*Tanh.* now; network.optimizer was"):
        fit(local_executors[1], tmp_path, network=other())
    with pytest.warns(StrombusWarning), pytest.raises(ValueError, match="another module's values"):
        fit(local_executors[1], tmp_path, network=other(), accept_changes=True)


def test_other_data_is_refused(local_executors, tmp_path):
    fit(local_executors[1], tmp_path, (1, 1))
    with pytest.raises(RunError, match="examples was 67, is 66 now"):
        fit(local_executors[1], tmp_path, data=tuple(array[1:] for array in data_of()))


@pytest.mark.filterwarnings("ignore::strombus.errors.StrombusWarning")
@pytest.mark.parametrize("changed", [{"shuffle": False}, {"repartition_data": "Never"}])
def test_an_order_that_has_changed_is_never_gone_on_with_within_an_epoch(local_executors, tmp_path, changed):
    fit(local_executors[1], tmp_path, (1, 4))
    with pytest.raises(RunError, match=r"the rows lie otherwise than they did, or are dealt otherwise"):
        fit(local_executors[1], tmp_path, accept_changes=True, **changed)
    assert list((tmp_path / "one").glob("step-*"))  # nothing is thrown away
    check_rows(fit(local_executors[1], tmp_path, accept_changes=True)[1])


def test_a_seed_that_has_changed_stays(local_executors, uncut, tmp_path):
    fit(local_executors[1], tmp_path, (1, 2))
    with pytest.warns(StrombusWarning, match="rngSeed was 7, is 8 now.*its seed stays 7"):
        check_same(fit(local_executors[1], tmp_path, accept_changes=True, rng_seed=8), uncut()[0])


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over(local_executors, uncut, tmp_path, name, caplog):
    fit(local_executors[1], tmp_path, (1, 3))
    latest = max((tmp_path / "one").glob("step-*"), key=lambda path: int(path.name[5:]))
    file = Path(latest, name)
    file.write_bytes(file.read_bytes()[:-3])
    check_same(fit(local_executors[1], tmp_path), uncut()[0])
    assert f"the checkpoint of step {latest.name[5:]} is passed over" in caplog.text
    assert metrics_of(tmp_path) == metrics_of(uncut()[1])


def test_when_all_are_damaged_the_fit_begins_anew(local_executors, uncut, tmp_path):
    fit(local_executors[1], tmp_path, (1, 3))
    for file in (tmp_path / "one").glob("step-*/model.safetensors"):
        file.write_bytes(b"")
    check_same(fit(local_executors[1], tmp_path), uncut()[0])
    assert metrics_of(tmp_path) == metrics_of(uncut()[1])
