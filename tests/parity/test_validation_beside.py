"""Validation beside training: the same figures, parameters and decisions as between epochs, while training goes on."""

from __future__ import annotations

import json
import logging
import time

import numpy as np
import pytest
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.callbacks import BestScore

PATIENCE = 60.0
ROWS, EPOCHS = 40, 3


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
    assert not [record for record in caplog.records if record.name.startswith("strombus")]
    assert [record.epoch for record in here.epochs] == [1, 2, 3]
    for mine, wanted in zip(here.epochs, there.epochs, strict=True):
        assert mine.validation["accuracy"] == wanted.validation["accuracy"]
        assert mine.validation["score"] == pytest.approx(wanted.validation["score"], rel=1e-12)
        assert (mine.iteration, mine.examples, mine.score) == (wanted.iteration, wanted.examples, wanted.score)
    for (epoch, count, parameters), (_, _, wanted) in zip(heard, told, strict=True):
        assert epoch == count
        np.testing.assert_array_equal(parameters, wanted)


def fit_until(kind, executor, folder, transform, stopping, mode):
    """Fit with validation data that passes `transform`; return the result and the parameters."""
    path = str(folder / "validation.zarr")
    sb.data.export(make_data(40, seed=1), path, progress=False, overwrite=True)
    network = make_network("momentum")

    class Mark(sb.Callback):
        """Let validation go on once the second epoch is under way, which takes a while from then on."""

        def on_round(self, progress):
            if progress.epoch == 1 and progress.minibatches:
                (folder / "second").touch()
                time.sleep(0.05)

    pause = {"debug_longer_iterations": 8} if kind == "sharing" else {}
    with sb.Trainer(network, master_of(kind, **pause), backend=executor) as trainer:
        validation = sb.data.open_dataset(path, transform=transform)
        callbacks = [Mark(), *stopping]
        result = trainer.fit(make_data(20 * ROWS), EPOCHS, validation, callbacks, False, validation_mode=mode)
    return result, network.state().parameters


@pytest.mark.parametrize("kind", ["averaging", "sharing"])
def test_training_goes_on_meanwhile_and_is_stopped_when_the_figures_come(local_executors, tmp_path, kind):
    """The first epoch's validation waits for the second epoch to be under way, which inline it would never be."""
    marker, patience = str(tmp_path / "second"), PATIENCE

    def wait(batch):
        import time
        from pathlib import Path

        deadline = time.monotonic() + patience
        while not Path(marker).exists():
            if time.monotonic() > deadline:
                raise TimeoutError("no round of the second epoch came")
            time.sleep(0.01)
        return batch

    stopping = sb.EarlyStopping([BestScore(1e9)], restore_best=True)
    result, found = fit_until(kind, local_executors[2], tmp_path, wait, [stopping], "async")
    inline = sb.EarlyStopping([BestScore(1e9)])
    expected, wanted = fit_until(kind, local_executors[2], tmp_path, None, [inline], "inline")
    assert (result.stopped_by, stopping.result.best_epoch, stopping.result.reason) == (
        "EarlyStopping",
        1,
        "epoch_condition",
    )
    assert stopping.result.best_score == pytest.approx(inline.result.best_score, rel=1e-12)
    np.testing.assert_array_equal(found, wanted)
    assert result.examples > expected.examples  # of the second epoch


@pytest.mark.parametrize("kind", ["averaging", "sharing"])
def test_checkpoints_have_the_figures_and_the_best_is_kept(local_executors, tmp_path, kind):
    def checkpoints(mode):
        config = sb.CheckpointConfig(every="1epoch", keep=1, best="score")
        fit(local_executors[2], kind, mode, name=mode, storage_path=tmp_path, checkpoint=config)
        states = {
            path.parent.name: json.loads(path.read_text()) for path in (tmp_path / mode).glob("step-*/state.json")
        }
        for state in states.values():
            for record in state["records"]:
                record["validation"]["score"] = pytest.approx(record["validation"].pop("score"), rel=1e-12)
                del record["seconds"]
        return {name: (state["cursor"], state["records"]) for name, state in states.items()}

    assert checkpoints("async") == checkpoints("inline")


def test_without_a_free_slot_it_is_inline_and_says_so(local_executors, caplog):
    expected, there, _ = fit(local_executors[1], "averaging", "inline")
    with caplog.at_level(logging.WARNING):
        found, here, _ = fit(local_executors[1], "averaging", "async")
    assert "needs slots that are free: 1 workers train, and local has 1 slots" in caplog.text
    np.testing.assert_array_equal(found, expected)
    assert [one.validation for one in here.epochs] == [one.validation for one in there.epochs]


def test_an_error_of_validation_ends_the_fit(local_executors, tmp_path):
    def fail(batch):
        raise ZeroDivisionError("on purpose")

    with pytest.raises(sb.errors.TaskError, match="on purpose"):
        fit_until("averaging", local_executors[2], tmp_path, fail, [], "async")


def test_another_mode_is_refused(local_executors):
    with pytest.raises(sb.errors.ConfigurationError, match="must be 'inline' or 'async', got 'later'"):
        fit(local_executors[1], "averaging", "later")
