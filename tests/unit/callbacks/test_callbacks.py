"""Callbacks: in which order they are called, how they end a fit, and what is shown."""

from __future__ import annotations

import io

import numpy as np
import pytest
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.callbacks import FitPlan, ProgressBar
from strombus.errors import TaskError
from strombus.executors.local import LocalExecutor
from strombus.masters.job import Progress


class Noted(sb.Callback):
    def __init__(self, name, calls, stop_after=None, fail_at=None):
        self.name, self.calls, self.stop_after, self.fail_at = name, calls, stop_after, fail_at

    def note(self, what, *figures):
        self.calls.append((self.name, what, *figures))
        if what == self.fail_at:
            raise RuntimeError(f"{self.name} failed at {what}")

    def on_fit_start(self, plan):
        self.note("start", plan)

    def on_round(self, progress):
        self.note("round", progress.epoch, progress.round, progress.examples)

    def on_epoch_end(self, record):
        self.note("epoch", record.epoch)
        return record.epoch == self.stop_after

    def on_error(self, error):
        self.note("error", str(error))

    def on_fit_end(self):
        self.note("end")


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as executor:
        yield executor


def fit(executor, callbacks, epochs=2, data=None, network=None):
    master = sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=5, averaging_frequency=2, rng_seed=0)
    with sb.Trainer(network or make_network(), master, executor) as trainer:
        return trainer.fit(data or make_data(30), epochs=epochs, callbacks=callbacks, progress=False)


def test_the_order_of_calls(executor):
    calls = []
    fit(executor, [Noted("a", calls), Noted("b", calls)])
    plan = FitPlan(epochs=2, examples=30, workers=2, backend="local")
    epoch = lambda number: [  # noqa: E731
        ("a", "round", number - 1, 0, 20),
        ("b", "round", number - 1, 0, 20),
        ("a", "round", number - 1, 1, 10),
        ("b", "round", number - 1, 1, 10),
        ("a", "epoch", number),
        ("b", "epoch", number),
    ]
    starts = [("a", "start", plan), ("b", "start", plan)]
    assert calls == [*starts, *epoch(1), *epoch(2), ("b", "end"), ("a", "end")]


def test_true_ends_the_fit_after_all_were_told(executor):
    calls, network = [], make_network()
    result = fit(executor, [Noted("a", calls, stop_after=2), Noted("b", calls)], epochs=5, network=network)
    assert [record.epoch for record in result.epochs] == [1, 2]
    assert (network.epoch, network.iteration) == (2, 6)
    assert ("b", "epoch", 2) in calls
    assert fit(executor, [], network=network).epochs[0].epoch == 3


def test_only_true_ends_the_fit(executor):
    class Chatty(sb.Callback):
        def on_epoch_end(self, record):
            return "a long text"

    assert len(fit(executor, [Chatty()]).epochs) == 2


@pytest.mark.parametrize("where", ["round", "epoch"])
def test_an_error_of_a_callback_ends_the_fit_and_all_callbacks(executor, where):
    calls = []
    with pytest.raises(RuntimeError, match=f"b failed at {where}") as caught:
        fit(executor, [Noted("a", calls), Noted("b", calls, fail_at=where), Noted("c", calls)])
    assert caught.value.__notes__ == [
        f"raised by Noted.on_{where}{'_end' * (where == 'epoch')}, a callback of this fit"
    ]
    assert [(name, what) for name, what, *_ in calls][-3:] == [("c", "end"), ("b", "end"), ("a", "end")]
    told = f"b failed at {where}"
    assert [call for call in calls if call[1] == "error"] == [(name, "error", told) for name in "abc"]


def test_it_is_the_callbacks_own_error_in_shared_training_too(executor):
    calls, master = [], sb.SharedTrainingMaster(workers=1, rng_seed=0)
    with (
        sb.Trainer(make_network(), master, executor) as trainer,
        pytest.raises(RuntimeError, match="b failed at round") as caught,
    ):
        trainer.fit(make_data(30), callbacks=[Noted("a", calls), Noted("b", calls, fail_at="round")], progress=False)
    assert "raised by Noted.on_round" in caught.value.__notes__[0]
    assert [(name, what) for name, what, *_ in calls][-2:] == [("b", "end"), ("a", "end")]


class Takes(sb.Callback):
    def on_error(self, error):
        self.error = error
        return True


def test_an_error_of_training_may_be_taken_for_the_end(executor):
    features, labels = make_data(30)
    network, takes, calls = make_network(), Takes(), []
    fit(executor, [], data=(features, labels), network=network)
    before = network.state().parameters
    features[3] = np.nan
    result = fit(executor, [Noted("a", calls), takes], data=(features, labels), network=network)
    assert isinstance(takes.error, TaskError)
    assert (result.epochs, result.stopped_by) == ((), "Takes")
    np.testing.assert_array_equal(network.state().parameters, before)
    assert [what for _, what, *_ in calls][-2:] == ["error", "end"]


@pytest.mark.parametrize("where", ["round", "epoch", "error"])
def test_an_error_of_a_callback_is_never_taken_for_the_end(executor, where):
    data = make_data(30)
    if where == "error":
        data[0][3] = np.nan
    with pytest.raises(RuntimeError, match=f"b failed at {where}"):
        fit(executor, [Noted("b", [], fail_at=where), Takes()], data=data)


class StopsAt(sb.Callback):
    def __init__(self, round_):
        self.round = round_

    def on_round(self, progress):
        return progress.round == self.round


def test_true_of_a_round_ends_the_fit_within_the_epoch(executor):
    calls, network = [], make_network()
    result = fit(executor, [StopsAt(1), Noted("a", calls)], epochs=5, data=make_data(100), network=network)
    rounds = [call for call in calls if call[1] == "round"]
    assert rounds == [("a", "round", 0, number, 20) for number in range(3)]  # the third was under way
    assert (result.examples, result.minibatches, result.epochs, result.stopped_by) == (60, 12, (), "StopsAt")
    assert (network.epoch, network.iteration) == (0, 6)
    again = make_network()
    fit(executor, [], epochs=1, data=make_data(100), network=again)
    assert not np.array_equal(network.state().parameters, again.state().parameters)


def test_true_of_the_last_round_ends_the_fit_after_the_epoch(executor):
    result = fit(executor, [StopsAt(4)], epochs=5, data=make_data(100))
    assert [record.examples for record in result.epochs] == [100]
    assert result.stopped_by == "StopsAt"


def test_the_state_of_a_callback_is_empty_by_default():
    assert sb.Callback().state() == {}
    assert sb.Callback().load_state({}) is None


def test_a_callback_that_did_not_start_is_not_ended(executor):
    calls = []
    with pytest.raises(RuntimeError, match="b failed at start"):
        fit(executor, [Noted("a", calls), Noted("b", calls, fail_at="start")])
    assert [(name, what) for name, what, *_ in calls] == [("a", "start"), ("b", "start"), ("a", "end")]


def test_an_error_of_the_end_keeps_no_other_from_ending(executor):
    calls = []
    with pytest.raises(RuntimeError, match="b failed at end"):
        fit(executor, [Noted("a", calls), Noted("b", calls, fail_at="end")])
    assert calls[-1] == ("a", "end")


def test_a_failed_fit_ends_its_callbacks_and_keeps_the_last_epochs_network(executor):
    calls, network = [], make_network()
    features, labels = make_data(30)
    fit(executor, [], data=(features, labels), network=network)
    before = network.state().parameters.copy()
    features[3] = np.nan
    with pytest.raises(TaskError, match="NaN"):
        fit(executor, [Noted("a", calls)], data=(features, labels), network=network)
    assert calls[-1] == ("a", "end")
    np.testing.assert_array_equal(network.state().parameters, before)
    assert network.epoch == 2


# -- the progress bar ----------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_where_there_is_no_terminal(executor):
    stream = io.StringIO()
    fit(executor, [ProgressBar(stream)])
    first, *epochs = stream.getvalue().splitlines()
    assert first == "training 30 examples on local, 2 workers, 2 epochs"
    assert [line.split(":")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert all(" score " in line and "examples/s)" in line for line in epochs)


def test_a_bar_of_examples_on_a_terminal(executor):
    stream = Terminal()
    bar = ProgressBar(stream)
    fit(executor, [bar])
    shown = stream.getvalue()
    assert "training on local, 2 workers" in shown
    assert "60.0/60.0" in shown.rpartition("\r")[2]
    assert "epoch 1/2: score" in shown
    assert "epoch 2/2: score" in shown
    before = len(stream.getvalue())
    fit(executor, [bar], epochs=1)
    assert "epoch 1/1: score" in stream.getvalue()[before:]


def test_the_bar_shows_validation_and_one_worker():
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar.on_fit_start(FitPlan(1, 10, 1, "dask"))
    bar.on_round(Progress(0, 0, 10, 1, 1, 0.5))
    bar.on_epoch_end(sb.EpochRecord(1, 1, 10, 1, 0.5, 2.0, {"score": 0.25, "accuracy": 1.0}))
    bar.on_fit_end()
    bar.on_fit_end()
    assert stream.getvalue().splitlines() == [
        "training 10 examples on dask, 1 worker, 1 epochs",
        "epoch 1/1: score 0.5000, validation score 0.2500, validation accuracy 1.0000 (2.0 s, 5 examples/s)",
    ]


def test_progress_goes_to_standard_error(executor, capsys):
    master = sb.ParameterAveragingTrainingMaster(workers=1, rng_seed=0)
    with sb.Trainer(make_network(), master, executor) as trainer:
        trainer.fit(make_data(10))
        trainer.fit(make_data(10), progress=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("training 10 examples") == 1
