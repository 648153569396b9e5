"""Run directories: what a fit with a name leaves, in which order, and which names are refused."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from helpers.hooks import SeenRows
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.callbacks import MaxEpochs
from strombus.errors import ConfigurationError, MissingDataError, RunError
from strombus.executors.local import LocalExecutor
from strombus.runs import open_run
from strombus.stats import TrainingStats


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as executor:
        yield executor


def fit(executor, network=None, callbacks=(), master=None, rows=48, **options):
    network = network or make_network("momentum")
    master = master or sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=8, rng_seed=4)
    with sb.Trainer(network, master, executor) as trainer:
        return trainer.fit(
            make_data(rows), 2, validation=make_data(20, 1), callbacks=callbacks, progress=False, **options
        )


def test_what_a_fit_leaves(executor, tmp_path):
    network = make_network("momentum")
    result = fit(executor, network, [sb.EarlyStopping([MaxEpochs(9)])], name="one", storage_path=tmp_path)
    folder = tmp_path / "one"
    names = ["best.safetensors", "config.json", "early_stopping.json", "metrics.jsonl", "network.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "result.json", "step-0", "step-3", "step-6"]
    config = json.loads((folder / "config.json").read_text())
    assert config["versions"].keys() >= {"python", "strombus", "torch"}
    assert (config["epochs"], config["seed"], config["backend"], config["first_epoch"]) == (2, 4, "local", 1)
    optimizer = {"class": "torch.optim.sgd:SGD", "arguments": [], "lr": 0.1, "momentum": 0.9}
    assert config["network"]["optimizer"] == optimizer
    assert "Linear(in_features=6, out_features=8" in config["network"]["module"]
    assert (config["master"]["type"], config["master"]["batchSizePerWorker"]) == ("parameter_averaging", 8)
    written = json.loads((folder / "result.json").read_text())
    assert [one["validation"]["score"] for one in written["epochs"]] == [
        record.validation["score"] for record in result.epochs
    ]
    assert (written["examples"], written["seed"], written["stopped_by"]) == (96, 4, None)
    kept = make_network("momentum").load(folder / "network.safetensors")
    np.testing.assert_array_equal(kept.state().parameters, network.state().parameters)
    assert (kept.epoch, kept.iteration) == (2, network.iteration)
    stopping = json.loads((folder / "early_stopping.json").read_text())
    assert (stopping["reason"], sorted(stopping["scores"])) == ("epochs", ["1", "2"])


def test_without_a_name_nothing_is_written(executor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(executor, callbacks=[sb.EarlyStopping([MaxEpochs(9)])])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigurationError, match="give fit a name too"):
        fit(executor, storage_path=tmp_path)


def test_the_working_directory_is_the_default(executor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(executor, name="here")
    assert (tmp_path / "strombus-runs" / "here" / "result.json").exists()


def test_a_finished_name_returns_its_result(executor, tmp_path):
    trained, stopping = make_network("momentum"), sb.EarlyStopping([MaxEpochs(9)])
    first = fit(executor, trained, [stopping], name="one", storage_path=tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "one").glob("*.*")}
    network = make_network("momentum")
    restored = sb.EarlyStopping([MaxEpochs(9)])
    again = fit(executor, network, [restored], name="one", storage_path=tmp_path)
    assert restored.result == stopping.result
    best = [one.result.best_network.state().parameters for one in (restored, stopping)]
    np.testing.assert_array_equal(*best)
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").glob("*.*")} == before
    assert (again.network, again.epochs, again.examples) == (network, first.epochs, first.examples)
    np.testing.assert_array_equal(network.state().parameters, trained.state().parameters)
    assert (network.epoch, network.iteration) == (2, trained.iteration)


def test_a_finished_name_with_other_settings_is_refused(executor, tmp_path):
    fit(executor, name="one", storage_path=tmp_path)
    network = make_network("adam")
    with pytest.raises(RunError, match=r"network.optimizer was .*SGD.*, is .*Adam.*accept_changes=True"):
        fit(executor, network, name="one", storage_path=tmp_path)
    with pytest.raises(RunError, match=r"examples was 48, is 30 now.*accept_changes=True"):
        fit(executor, rows=30, name="one", storage_path=tmp_path)
    assert fit(executor, rows=30, name="one", storage_path=tmp_path, accept_changes=True).examples == 96
    assert network.iteration == 0


def test_a_fit_that_failed_leaves_no_result_and_no_lease(executor, tmp_path):
    class Fails(sb.Callback):
        def on_epoch_end(self, record):
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fit(executor, callbacks=[Fails()], name="one", storage_path=tmp_path)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["config.json", "metrics.jsonl", "step-0"]
    fit(executor, name="one", storage_path=tmp_path)
    assert (tmp_path / "one" / "result.json").exists()


def test_a_name_in_use_is_refused_before_anything_is_trained(executor, tmp_path):
    with (
        open_run("one", tmp_path, lease_seconds=1.0),
        pytest.raises(RunError, match=r"'one' in .* is in use by "),
        open_run("one", tmp_path, lease_seconds=1.0),
    ):
        pass
    fit(executor, name="one", storage_path=tmp_path)  # the first has written nothing


def test_a_run_that_was_taken_over_ends(executor, tmp_path):
    class TakenOver(sb.Callback):
        def on_fit_start(self, plan):
            plan.run._lease._taken_by = "host:7"

    with pytest.raises(RunError, match="was taken over by host:7"):
        fit(executor, callbacks=[TakenOver()], name="one", storage_path=tmp_path)
    assert not (tmp_path / "one" / "result.json").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b", "-x", "ü", 7])
def test_names_that_are_none(name, tmp_path):
    with pytest.raises(ConfigurationError, match="name must be of letters"), open_run(name, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_at_a_uri(executor):
    fit(
        executor,
        callbacks=[sb.EarlyStopping([MaxEpochs(1)], restore_best=True)],
        name="one",
        storage_path="memory://runs",
    )
    files = fsspec.filesystem("memory")
    assert {Path(path).name for path in files.ls("/runs/one", detail=False)} == {
        "best.safetensors",
        "config.json",
        "early_stopping.json",
        "metrics.jsonl",
        "network.safetensors",
        "result.json",
        "step-0",
    }
    lines = [json.loads(line) for line in files.cat_file("/runs/one/metrics.jsonl").splitlines()]
    result = json.loads(files.cat_file("/runs/one/result.json"))
    assert lines[-1]["validation_score"] == result["epochs"][0]["validation"]["score"]


def test_records_are_written_in_one_piece(tmp_path, monkeypatch):
    with open_run("one", tmp_path) as run:
        run.write("result.json", {"score": 1.0})
        monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            run.write("result.json", {"score": 2.0})
        monkeypatch.undo()
        assert run.read("result.json") == {"score": 1.0}
        assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["lease.json", "result.json"]


def test_figures_that_are_not_finite_are_null(tmp_path):
    with open_run("one", tmp_path) as run:
        run.write("x.json", {"a": float("nan"), "b": [np.float32(1.5), np.int64(3), float("inf")], "c": SeenRows})
        assert run.read("x.json") == {"a": None, "b": [1.5, 3, None], "c": str(SeenRows)}


def test_hooks_and_transports_without_a_written_form(executor, tmp_path):
    master = sb.ParameterAveragingTrainingMaster(workers=1, training_hooks=[SeenRows()])
    fit(executor, master=master, name="one", storage_path=tmp_path)
    assert json.loads((tmp_path / "one" / "config.json").read_text())["master"]["hooks"] == ["SeenRows"]


def test_data_that_is_not_there_does_not_use_up_the_name(executor, tmp_path):
    with sb.Trainer(make_network(), sb.ParameterAveragingTrainingMaster(workers=1), executor) as trainer:
        with pytest.raises(MissingDataError):
            trainer.fit(tmp_path / "nothing.zarr", name="one", storage_path=tmp_path)
        trainer.fit(make_data(10), name="one", storage_path=tmp_path, progress=False)


def test_what_was_timed_is_kept(executor, tmp_path):
    master = sb.ParameterAveragingTrainingMaster(workers=1, collect_training_stats=True)
    result = fit(executor, master=master, name="one", storage_path=tmp_path)
    assert TrainingStats.load(tmp_path / "one").keys() == result.stats.keys() != ()
