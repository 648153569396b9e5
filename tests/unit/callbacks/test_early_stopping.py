"""Early stopping of real fits: when they end, what is kept, and how a callback goes on."""

from __future__ import annotations

import functools
import json
import math
import os

import numpy as np
import pytest
import torch
from helpers.hooks import SeenRows, SlowSteps
from helpers.networks import make_data, make_mlp32, make_network

import strombus as sb
from strombus.callbacks import (
    BestScore,
    FileModelSaver,
    InMemoryModelSaver,
    InvalidScore,
    JsonLinesLogger,
    MaxEpochs,
    MaxScore,
    MaxTime,
    MetricValue,
    ScoreImprovement,
)
from strombus.errors import ConfigurationError, TaskError
from strombus.executors.local import LocalExecutor

OPTIONS = {"workers": 2, "batch_size_per_worker": 8, "rng_seed": 0}
TRAIN, VALIDATION = make_data(96), make_data(40, seed=1)


def averaging(**options):
    return sb.ParameterAveragingTrainingMaster(**{**OPTIONS, "averaging_frequency": 2, **options})


def sharing(**options):
    return sb.SharedTrainingMaster(**{**OPTIONS, **options})


MASTERS = [averaging, sharing]

# A quantum is at most 1e30, with which a loss stays finite: what explodes is shared whole.
EXPLODING = [averaging, functools.partial(sharing, encoder="dense", max_staleness=0)]


def exploding_network():
    network = make_network(module=make_mlp32)
    network.optimizer = functools.partial(torch.optim.SGD, lr=3e38)
    return network


@pytest.fixture(scope="module")
def executor(local_executors):
    return local_executors[2]


def fit(executor, master, stopping, network=None, epochs=20, data=TRAIN, validation=VALIDATION, **options):
    network = network or make_network("momentum")
    with sb.Trainer(network, master, executor) as trainer:
        return trainer.fit(
            data, epochs=epochs, validation=validation, callbacks=[stopping], progress=False, **options
        ), network


def score_of(network, data=VALIDATION):
    """Compute the mean loss by torch alone."""
    with torch.no_grad():
        return float(torch.nn.CrossEntropyLoss()(network.module(torch.from_numpy(data[0])), torch.from_numpy(data[1])))


# -- the upstream cases --------------------------------------------------------------------------


@pytest.mark.parametrize("make_master", MASTERS)
def test_five_epochs_give_five_scores_and_the_best_network(executor, make_master):
    stopping = sb.EarlyStopping([MaxEpochs(5), MaxTime(600), InvalidScore()])
    fitted, network = fit(executor, make_master(), stopping)
    result = stopping.result
    assert (result.reason, result.details, result.epochs) == ("epoch_condition", "MaxEpochs(epochs=5)", 5)
    assert result.scores == {record.epoch: record.validation["score"] for record in fitted.epochs}
    assert list(result.scores) == [1, 2, 3, 4, 5]
    assert (result.best_score, result.best_epoch) == min((score, epoch) for epoch, score in result.scores.items())
    assert score_of(result.best_network) == pytest.approx(result.best_score, abs=1e-9)
    assert result.best_network is not network
    assert fitted.stopped_by == "EarlyStopping"


@pytest.mark.parametrize("make_master", EXPLODING, ids=["averaging", "sharing"])
@pytest.mark.parametrize("condition", [InvalidScore(), MaxScore(1e6)])
def test_a_learning_rate_that_explodes_ends_the_fit(executor, make_master, condition):
    network = exploding_network()
    before = network.state().parameters
    stopping = sb.EarlyStopping([MaxEpochs(5), condition])
    fitted, _ = fit(executor, make_master(), stopping, network)
    assert (stopping.result.reason, stopping.result.details) == ("iteration_condition", repr(condition))
    assert stopping.result.epochs == len(fitted.epochs) < 5
    assert fitted.stopped_by == "EarlyStopping"
    if isinstance(condition, InvalidScore) and not fitted.epochs:
        np.testing.assert_array_equal(network.state().parameters, before)


@pytest.mark.parametrize("make_master", EXPLODING, ids=["averaging", "sharing"])
def test_without_such_a_condition_it_is_an_error(executor, make_master):
    stopping = sb.EarlyStopping([MaxEpochs(5)])
    with pytest.raises(TaskError, match=r"NaN|infinite|finite"):
        fit(executor, make_master(), stopping, exploding_network())
    assert stopping.result.reason == "error"
    assert "Error: " in stopping.result.details


@pytest.mark.parametrize("make_master", MASTERS)
def test_a_learning_rate_of_nothing_does_not_improve(executor, make_master):
    network = make_network()
    network.optimizer = functools.partial(torch.optim.SGD, lr=0.0)
    stopping = sb.EarlyStopping([MaxEpochs(100), ScoreImprovement(5)])
    fit(executor, make_master(), stopping, network)
    assert (stopping.result.epochs, stopping.result.best_epoch) == (6, 1)
    assert stopping.result.details == "ScoreImprovement(epochs=5, min_improvement=0.0)"


@pytest.mark.parametrize("make_master", MASTERS)
def test_the_time_is_up_within_an_epoch(executor, make_master):
    seen, network = SeenRows(), make_network()
    master = make_master(training_hooks=[seen, SlowSteps()], batch_size_per_worker=4)
    features, labels = make_data(4000)
    features[:, 0] = np.arange(4000)  # an epoch takes 10 s
    stopping = sb.EarlyStopping([MaxTime(0.7)])
    fitted, _ = fit(executor, master, stopping, network, data=(features, labels), epochs=1)
    assert (stopping.result.reason, stopping.result.details) == ("iteration_condition", "MaxTime(seconds=0.7)")
    assert fitted.seconds >= 0.7
    assert (fitted.epochs, stopping.result.scores, network.epoch) == ((), {}, 0)
    rows = [row for _, row in seen.rows]
    assert len(set(rows)) == len(rows) == fitted.examples
    assert {rank for rank, _ in seen.rows} == {0, 1}
    assert 0 < network.iteration <= fitted.minibatches < 1000
    assert stopping.result.best_network is None


@pytest.mark.parametrize("staleness", [0, 4, None])
def test_members_that_left_an_epoch_go_on_with_the_next_fit(executor, staleness):
    master = sharing(training_hooks=[SlowSteps()], max_staleness=staleness)
    with sb.Trainer(make_network("momentum"), master, executor) as trainer:
        stopped = trainer.fit(
            make_data(1600), callbacks=[sb.EarlyStopping([MaxTime(0.3)], lambda t: 0.0, maximize=False)], progress=False
        )
        assert stopped.epochs == ()
        assert 0 < stopped.examples < 1600
        (record,) = trainer.fit(TRAIN, progress=False).epochs
    assert (record.epoch, record.examples) == (1, 96)
    assert record.iteration == trainer.network.iteration


# -- what is watched -----------------------------------------------------------------------------


@pytest.mark.parametrize("make_master", MASTERS)
def test_only_every_third_epoch_is_evaluated_and_all_count(executor, make_master):
    calls = []

    def monitor(trainer):
        calls.append(trainer.network.epoch)
        return trainer.calculate_score(VALIDATION)

    stopping = sb.EarlyStopping([MaxEpochs(8)], monitor, maximize=False, evaluate_every_n_epochs=3)
    fitted, _ = fit(executor, make_master(), stopping)
    assert len(fitted.epochs) == stopping.result.epochs == 8
    assert calls == list(stopping.result.scores) == [3, 6]
    for epoch, score in stopping.result.scores.items():
        assert score == pytest.approx(fitted.epochs[epoch - 1].validation["score"], abs=1e-9)


class Wants(sb.Callback):
    """Want some epochs validated, and keep what came."""

    def __init__(self, *epochs):
        self.epochs, self.found = epochs, {}

    def validates(self, epoch):
        return epoch in self.epochs

    def on_epoch_end(self, record):
        self.found[record.epoch] = dict(record.validation)


@pytest.mark.parametrize("make_master", MASTERS)
def test_only_epochs_that_a_callback_wants_are_validated(executor, make_master):
    master, network = make_master(collect_training_stats=True), make_network("momentum")
    wants = Wants(4)
    stopping = sb.EarlyStopping([MaxEpochs(7)], "accuracy", evaluate_every_n_epochs=3)
    with sb.Trainer(network, master, executor) as trainer:
        trainer.fit(TRAIN, epochs=2, progress=False)
        options = {"validation": VALIDATION, "progress": False}
        fitted = trainer.fit(TRAIN, epochs=9, callbacks=[stopping, wants], **options)
        assert list(stopping.result.scores) == [5, 8]  # the fit's third and sixth, of which the first is epoch 3
        assert [epoch for epoch, found in wants.found.items() if found] == [4, 5, 8]
        for record in fitted.epochs:
            assert (set(record.validation) == {"score", "accuracy"}) is (record.epoch in (4, 5, 8))
        assert stopping.result.scores[8] == wants.found[8]["accuracy"]
        times = 2 if master.validates else 1  # each of two members scores its share, or the driver all of it
        assert fitted.stats.totals("validate").count == 3 * times
        both = trainer.fit(TRAIN, epochs=2, callbacks=[JsonLinesLogger(os.devnull)], **options)
        assert all(record.validation for record in both.epochs)  # passive callbacks are not asked


def test_a_score_that_was_not_wanted_is_not_there(executor):
    class Other(sb.EarlyStopping):
        def validates(self, epoch):
            return False

    with pytest.raises(ConfigurationError, match="epoch 1 has no validation figure 'score': it was not validated"):
        fit(executor, averaging(), Other([MaxEpochs(2)]))


@pytest.mark.parametrize("make_master", MASTERS)
def test_accuracy_is_maximised(executor, make_master):
    stopping = sb.EarlyStopping([BestScore(0.8)], "accuracy", restore_best=True)
    fitted, network = fit(executor, make_master(), stopping)
    accuracies = [record.validation["accuracy"] for record in fitted.epochs]
    assert stopping.result.details == "BestScore(score=0.8)"
    assert accuracies[-1] >= 0.8
    assert all(accuracy < 0.8 for accuracy in accuracies[:-1])
    assert stopping.result.best_score == max(accuracies)
    assert (network.predict(VALIDATION[0]).argmax(1) == VALIDATION[1]).mean() == stopping.result.best_score


@pytest.mark.parametrize("make_master", MASTERS)
def test_a_metrics_value(executor, make_master):
    stopping = sb.EarlyStopping([MaxEpochs(3)], MetricValue(sb.Evaluation(), "f1"), maximize=True)
    _, network = fit(executor, make_master(), stopping)
    with sb.Trainer(network, backend=executor) as trainer:
        assert stopping.result.scores[3] == trainer.evaluate(VALIDATION).f1()


def test_one_member_in_this_process_can_be_watched_too():
    stopping = sb.EarlyStopping([MaxEpochs(2)], MetricValue(sb.Evaluation(), "accuracy"), maximize=True)
    with LocalExecutor(1) as executor:
        fitted, _ = fit(executor, sharing(workers=1), stopping)
    assert list(stopping.result.scores.values()) == [record.validation["accuracy"] for record in fitted.epochs]


def test_the_training_score_needs_no_validation_data(executor):
    stopping = sb.EarlyStopping([MaxEpochs(2)], lambda trainer: trainer.score, maximize=False)
    fitted, _ = fit(executor, averaging(), stopping, validation=None)
    assert list(stopping.result.scores.values()) == [record.score for record in fitted.epochs]


# -- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize("make_master", MASTERS)
def test_the_best_network_is_restored_and_the_next_fit_goes_on_from_it(executor, make_master):
    scores = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    states = []

    def monitor(trainer):
        states.append(trainer.network.state())
        return next(scores)

    network, master = make_network("momentum"), make_master()
    stopping = sb.EarlyStopping([ScoreImprovement(2)], monitor, maximize=False, restore_best=True)
    with sb.Trainer(network, master, executor) as trainer:
        fitted = trainer.fit(TRAIN, epochs=9, callbacks=[stopping], progress=False)
        assert [record.epoch for record in fitted.epochs] == [1, 2, 3, 4]
        assert (network.epoch, network.iteration) == (2, states[1].iteration)
        np.testing.assert_array_equal(network.state().parameters, states[1].parameters)
        for name, array in states[1].updater.tensors.items():
            np.testing.assert_array_equal(network.updater.tensors[name], array)
        assert trainer._carried is None  # residuals of later epochs do not belong to these parameters
        assert trainer.fit(TRAIN, progress=False).epochs[0].epoch == 3


def test_files_of_the_best_and_the_latest_network(executor, tmp_path):
    scores = iter([1.0, 2.0, 3.0])
    saver = FileModelSaver(tmp_path / "kept")
    stopping = sb.EarlyStopping(
        [MaxEpochs(3)], lambda trainer: next(scores), maximize=False, saver=saver, save_latest=True
    )
    _, network = fit(executor, averaging(), stopping)
    latest, best = make_network("momentum").load(saver.path("latest")), make_network("momentum")
    assert best.load(saver.path("best")).epoch == 1
    np.testing.assert_array_equal(latest.state().parameters, network.state().parameters)
    np.testing.assert_array_equal(stopping.result.best_network.state().parameters, best.state().parameters)


@pytest.mark.parametrize("saver", [InMemoryModelSaver(), "file"])
def test_a_saver_that_has_nothing_changes_nothing(saver, tmp_path):
    saver = FileModelSaver(tmp_path) if saver == "file" else saver
    network = make_network()
    before = network.state().parameters
    assert not saver.load("best", network)
    np.testing.assert_array_equal(network.state().parameters, before)


# -- going on ------------------------------------------------------------------------------------


def test_a_callback_that_goes_on_ends_where_one_without_a_pause_does(executor, tmp_path):
    conditions = [ScoreImprovement(3, min_improvement=0.02), MaxEpochs(30)]
    whole = sb.EarlyStopping(conditions, evaluate_every_n_epochs=2)
    fit(executor, averaging(), whole, epochs=30)

    network, saver = make_network("momentum"), FileModelSaver(tmp_path)
    first = sb.EarlyStopping(conditions, evaluate_every_n_epochs=2, saver=saver)
    fit(executor, averaging(), first, network, epochs=5)
    assert (first.result.reason, first.result.epochs) == ("epochs", 5)
    second = sb.EarlyStopping(conditions, evaluate_every_n_epochs=2, saver=saver)
    second.load_state(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert second.state() == first.state()
    fit(executor, averaging(), second, network, epochs=25)
    assert second.result == whole.result
    assert whole.result.epochs > 6
    assert score_of(second.result.best_network) == pytest.approx(whole.result.best_score, abs=1e-9)


def test_the_time_goes_on_and_scores_that_are_no_numbers_survive():
    state = {"epochs": 2, "seconds": 100.0, "scores": [[1, 1, "nan"], [2, 2, "inf"]]}
    stopping = sb.EarlyStopping([MaxTime(100.001)])
    stopping.load_state(json.loads(json.dumps(state)))
    assert stopping.state() == state
    with LocalExecutor(1) as executor:
        fitted, _ = fit(executor, averaging(training_hooks=[SlowSteps()]), stopping, validation=VALIDATION)
    assert fitted.epochs == ()
    assert 100.001 <= stopping.state()["seconds"] <= 100.0 + fitted.seconds
    assert math.isnan(stopping.result.scores[1])


def test_without_a_state_every_fit_begins_anew(executor):
    stopping = sb.EarlyStopping([MaxEpochs(2)])
    _, network = fit(executor, averaging(), stopping)
    fit(executor, averaging(), stopping, network)
    assert list(stopping.result.scores) == [3, 4]


def test_what_else_ends_a_fit_is_told(executor):
    class Stops(sb.Callback):
        def on_epoch_end(self, record):
            return True

    stopping = sb.EarlyStopping([MaxEpochs(5)])
    with sb.Trainer(make_network(), averaging(), executor) as trainer:
        trainer.fit(TRAIN, 5, validation=VALIDATION, callbacks=[Stops(), stopping], progress=False)
    assert (stopping.result.reason, stopping.result.epochs) == ("interrupted", 1)


# -- what cannot work ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conditions": []}, "at least one condition"),
        ({"conditions": [5]}, "must be an EpochCondition or IterationCondition, got 5"),
        ({"conditions": MaxEpochs(1)}, "must be a sequence, got MaxEpochs: put it into a list"),
        ({"conditions": 5}, "must be a sequence, got int"),
        ({"conditions": [MaxEpochs(1)], "saver": "kept"}, "must be a ModelSaver, such as .*, got str"),
        ({"conditions": [MaxEpochs(1)], "evaluate_every_n_epochs": 0}, "at least 1, got 0"),
        ({"conditions": [MaxEpochs(1)], "monitor": "recall"}, "maximize=True or maximize=False"),
        ({"conditions": [MaxEpochs(1)], "monitor": lambda trainer: 0.0}, "maximize=True or maximize=False"),
    ],
)
def test_wrong_options(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        sb.EarlyStopping(**arguments)


def test_a_metric_without_that_value():
    with pytest.raises(ConfigurationError, match="Evaluation has no 'f2'"):
        MetricValue(sb.Evaluation(), "f2")


def test_a_name_that_is_no_validation_figure(executor):
    with pytest.raises(ConfigurationError, match="'recall'; known: score, accuracy"):
        fit(executor, averaging(), sb.EarlyStopping([MaxEpochs(1)], "recall", maximize=True))
    for conditions, options in ([MaxEpochs(1), ScoreImprovement(2)], {}), ([MaxEpochs(1)], {"restore_best": True}):
        with pytest.raises(ConfigurationError, match=r"the fit has none: .* trainer\.calculate_score"):
            fit(executor, averaging(), sb.EarlyStopping(conditions, **options), validation=None)


def test_conditions_that_look_at_no_score_need_no_validation_data(executor):
    stopping = sb.EarlyStopping([MaxEpochs(2), MaxTime(600), InvalidScore()])
    fitted, _ = fit(executor, averaging(), stopping, validation=None)
    result = stopping.result
    assert (len(fitted.epochs), result.reason, result.epochs) == (2, "epoch_condition", 2)
    assert (result.scores, result.best_epoch, result.best_network) == ({}, None, None)


# -- on clusters ---------------------------------------------------------------------------------


@pytest.mark.dask
@pytest.mark.parametrize("make_master", MASTERS)
def test_scores_on_dask(dask_client, make_master):
    stopping = sb.EarlyStopping([MaxEpochs(2)], lambda t: t.calculate_score(VALIDATION), maximize=False)
    fit(dask_client, make_master(), stopping)
    assert list(stopping.result.scores) == [1, 2]


@pytest.mark.dask
@pytest.mark.parametrize("make_master", EXPLODING, ids=["averaging", "sharing"])
def test_an_explosion_on_dask(dask_client, make_master):
    stopping = sb.EarlyStopping([MaxEpochs(2), InvalidScore()])
    fit(dask_client, make_master(), stopping, exploding_network())
    assert stopping.result.details == "InvalidScore()"
    assert stopping.result.epochs < 2


@pytest.mark.dask
@pytest.mark.parametrize("make_master", MASTERS)
def test_the_time_is_up_within_an_epoch_on_dask(dask_client, make_master):
    master = make_master(training_hooks=[SlowSteps()], batch_size_per_worker=4)
    stopping = sb.EarlyStopping([MaxTime(1.0)])
    fitted, network = fit(dask_client, master, stopping, data=make_data(4000), epochs=1)
    assert stopping.result.details == "MaxTime(seconds=1.0)"
    assert fitted.epochs == ()
    assert 0 < fitted.examples < 4000
    assert network.iteration > 0


@pytest.mark.spark
def test_members_on_spark():
    from helpers.spark import spark_context

    stopping = sb.EarlyStopping([InvalidScore()])
    fit(spark_context(), EXPLODING[1](), stopping, exploding_network(), epochs=2)
    assert stopping.result.details == "InvalidScore()"
    master = sharing(training_hooks=[SlowSteps()], batch_size_per_worker=4)
    stopping = sb.EarlyStopping([MaxTime(0.5)])
    fitted, network = fit(spark_context(), master, stopping, data=make_data(4000), epochs=1)
    assert (stopping.result.details, fitted.epochs) == ("MaxTime(seconds=0.5)", ())
    assert 0 < fitted.examples < 4000
    assert network.iteration > 0
