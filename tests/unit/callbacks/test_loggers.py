"""Metric loggers: what was written is read back, worker by worker."""

from __future__ import annotations

import json

import pytest
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.callbacks import JsonLinesLogger, MetricLogger, MlflowLogger, TensorBoardLogger
from strombus.errors import ConfigurationError
from strombus.executors.local import LocalExecutor


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as executor:
        yield executor


class Gather(MetricLogger):
    def __init__(self):
        self.entries = []

    def log(self, entry):
        self.entries.append(entry)


def averaging():
    return sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=5, averaging_frequency=2, rng_seed=0)


def fit(executor, callbacks, master=None, epochs=2, network=None, **options):
    with sb.Trainer(network or make_network(), master or averaging(), executor) as trainer:
        return trainer.fit(
            make_data(50), epochs, validation=make_data(20, 1), callbacks=callbacks, progress=False, **options
        )


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_entries_of_averaging(executor):
    gather = Gather()
    result = fit(executor, [gather])
    # 25 rows a worker: rounds of 2, 2 and 1 minibatches of 5 rows
    assert [(e.source, e.epoch, e.iteration, e.figures["examples"]) for e in gather.entries] == [
        *[(f"worker-{rank}", 1, step, rows) for step, rows in ((2, 10), (4, 10), (5, 5)) for rank in (0, 1)],
        ("all", 1, 5, 50),
        *[(f"worker-{rank}", 2, step, rows) for step, rows in ((7, 10), (9, 10), (10, 5)) for rank in (0, 1)],
        ("all", 2, 10, 50),
    ]
    last = gather.entries[-1].figures
    assert last["validation_score"] == result.epochs[-1].validation["score"]
    assert last["score"] == result.score == pytest.approx(sum(e.figures["loss"] for e in gather.entries[-3:-1]) / 2)
    assert all(e.figures["examples_per_second"] > 0 and ":" in e.where for e in gather.entries if e.worker is not None)


@pytest.mark.dask
def test_entries_of_shared_training(dask_client):
    gather = Gather()
    master = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=5, rng_seed=0)
    fit(dask_client, [gather], master)
    for rank in (0, 1):
        mine = [entry for entry in gather.entries if entry.worker == rank]
        assert sum(entry.figures["examples"] for entry in mine) == 50
        assert len({entry.where for entry in mine}) == 1
        assert mine[-1].iteration == 10
        assert all(0 < entry.figures["sent_share"] <= 1 for entry in mine)
        assert all(entry.figures["sent_bytes"] > 0 and entry.figures["threshold"] > 0 for entry in mine)
    assert len({entry.where for entry in gather.entries if entry.worker is not None}) == 2
    assert [entry.epoch for entry in gather.entries if entry.worker is None] == [1, 2]


def test_lines_of_a_named_fit(executor, tmp_path):
    gather = Gather()
    result = fit(executor, [gather], name="one", storage_path=tmp_path)
    lines = read_lines(tmp_path / "one" / "metrics.jsonl")
    assert len(lines) == len(gather.entries)
    for line, entry in zip(lines, gather.entries, strict=True):
        assert (line["source"], line["epoch"], line["iteration"]) == (entry.source, entry.epoch, entry.iteration)
        assert line["time"] == pytest.approx(entry.time, abs=1.0)
        assert {name: line[name] for name in entry.figures} == entry.figures
    assert lines[-1]["validation_accuracy"] == result.epochs[-1].validation["accuracy"]
    assert {line["where"] for line in lines if line["source"] != "all"} == {gather.entries[0].where}


def test_lines_are_appended_and_always_json(executor, tmp_path):
    path = tmp_path / "folder" / "metrics.jsonl"
    logger = JsonLinesLogger(path)
    fit(executor, [logger], epochs=1)
    count = len(read_lines(path))
    fit(executor, [logger], epochs=1)
    assert len(read_lines(path)) == 2 * count
    logger.on_fit_start(None)
    logger.on_epoch_end(sb.EpochRecord(1, 1, 10, 1, float("nan"), 2.0, {"score": float("inf")}))
    logger.on_fit_end()
    assert "NaN" not in path.read_text()
    last = read_lines(path)[-1]
    assert (last["score"], last["validation_score"], last["examples"]) == (None, None, 10)


def test_lines_are_there_after_an_error(executor, tmp_path):
    class Fails(sb.Callback):
        def on_epoch_end(self, record):
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fit(executor, [Fails()], name="one", storage_path=tmp_path)
    assert [line["source"] for line in read_lines(tmp_path / "one" / "metrics.jsonl")] == ["worker-0", "worker-1"] * 3


@pytest.mark.parametrize("make", [JsonLinesLogger, TensorBoardLogger])
def test_without_a_name_a_logger_needs_a_path(executor, make):
    with pytest.raises(ConfigurationError, match="where the fit has no name"):
        fit(executor, [make()])


def test_loggers_do_not_make_shared_training_wait():
    assert all(logger.passive for logger in (JsonLinesLogger("x"), TensorBoardLogger("x"), MlflowLogger()))


def test_tensorboard(executor, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra strombus[tensorboard] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    gather = Gather()
    fit(executor, [gather, TensorBoardLogger()], name="one", storage_path=tmp_path)
    folders = tmp_path / "one" / "tensorboard"
    assert sorted(path.name for path in folders.iterdir()) == ["all", "worker-0", "worker-1"]
    for source in ("all", "worker-0", "worker-1"):
        events = EventAccumulator(str(folders / source)).Reload()
        mine = [entry for entry in gather.entries if entry.source == source]
        assert set(events.Tags()["scalars"]) == set(mine[0].figures)
        for name in mine[0].figures:
            found = [(event.step, event.value) for event in events.Scalars(name)]
            assert found == [(entry.iteration, pytest.approx(entry.figures[name], rel=1e-6)) for entry in mine]


# -- MLflow --------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A client of a store of files."""
    mlflow = pytest.importorskip("mlflow", reason="the extra strombus[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return mlflow.MlflowClient((tmp_path / "mlruns").as_uri()), (tmp_path / "mlruns").as_uri()


def runs_of(client, experiment="strombus"):
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_mlflow(executor, tmp_path, store):
    client, uri = store
    gather = Gather()
    fit(executor, [gather, MlflowLogger(tracking_uri=uri)], name="one", storage_path=tmp_path / "runs")
    (run,) = runs_of(client)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "one")
    assert run.data.params == {"epochs": "2", "examples": "50", "workers": "2", "backend": "local", "seed": "0"}
    for source in ("all", "worker-0", "worker-1"):
        mine = [entry for entry in gather.entries if entry.source == source]
        for name in mine[0].figures:
            found = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, f"{source}/{name}")]
            assert found == [(entry.iteration, entry.figures[name]) for entry in mine]


def test_mlflow_goes_on_with_its_run_and_tells_of_failure(executor, store):
    client, uri = store
    network, logger = make_network(), MlflowLogger("mine", "first", uri)
    fit(executor, [logger], network=network, epochs=1)
    again = MlflowLogger("mine", tracking_uri=uri)
    again.load_state(json.loads(json.dumps(logger.state())))

    class Fails(sb.Callback):
        def on_epoch_end(self, record):
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fit(executor, [again, Fails()], network=network, epochs=1)
    (run,) = runs_of(client, "mine")
    assert (run.info.status, run.info.run_name) == ("FAILED", "first")
    assert [one.step for one in client.get_metric_history(run.info.run_id, "all/score")] == [5, 10]


@pytest.mark.parametrize(("name", "make"), [("mlflow", MlflowLogger), ("torch.utils.tensorboard", TensorBoardLogger)])
def test_what_is_not_installed_is_named(executor, tmp_path, monkeypatch, name, make):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    extra = name.rpartition(".")[2]
    with pytest.raises(ConfigurationError, match=rf"pip install strombus\[{extra}\]"):
        fit(executor, [make()], name="one", storage_path=tmp_path)
