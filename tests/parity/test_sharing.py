"""What shared training must equal: a plain torch loop, training on the joined minibatches, and itself."""

from __future__ import annotations

import hashlib
import sys

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import make_batch_norm, make_data, make_network, plain_loop

import strombus as sb
from strombus.errors import ExecutorError
from strombus.executors.base import Executor
from strombus.partitioning import batch_sizes
from strombus.transport import TransportOptions
from strombus.transport.zeromq import ZeroMQTransport

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Replicas(sb.TrainingHook):
    """Bring every member's parameters, as they are when the fit is over, to the driver."""

    def __init__(self):
        self.found = {}
        self.replica = None

    def pre_update(self, batch, replica):
        self.replica = replica

    def __deepcopy__(self, memo):
        return Replicas()

    def state(self):
        vector = self.replica.flat.read()
        return hashlib.sha256(vector.tobytes()).hexdigest(), self.replica.iteration

    def collect(self, rank, state):
        self.found[rank] = state


def fit(backend, network, data, epochs=1, hooks=(), callbacks=(), **options):
    defaults = {"shuffle": False, "rng_seed": 1, "last_batch": "keep", "timeout": 60}
    master = sb.SharedTrainingMaster(training_hooks=hooks, **{**defaults, **options})
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(data, epochs=epochs, callbacks=callbacks, progress=False)
    return network.state().parameters, result


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_one_dense_member_is_its_optimizer(backend, optimizer):
    data = make_data(50)
    expected = plain_loop(make_network(optimizer), *data, batch_sizes(50, 8, "keep"), epochs=2)
    network = make_network(optimizer)
    got, result = fit(backend, network, data, epochs=2, workers=1, batch_size_per_worker=8, encoder="dense")
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert network.iteration == result.minibatches == 14
    assert result.examples == 100


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_two_dense_members_are_the_joined_minibatch(backend, optimizer):
    if isinstance(backend, Executor) and backend.capacity().slots < 2:
        with pytest.raises(sb.errors.GangUnavailable, match="2"):
            fit(backend, make_network(optimizer), make_data(20), workers=2)
        return
    rows, batch = 20, 5
    features, labels = make_data(rows)
    order = np.concatenate(
        [np.arange(w * 10 + r * batch, w * 10 + (r + 1) * batch) for r in range(2) for w in range(2)]
    )
    expected = plain_loop(make_network(optimizer), features[order], labels[order], [2 * batch] * 2, epochs=1)
    network = make_network(optimizer)
    options = {"workers": 2, "batch_size_per_worker": batch, "encoder": "dense", "max_staleness": 0}
    got, _ = fit(backend, network, (features, labels), **options)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert network.iteration == 2


@pytest.fixture(scope="module")
def pair(local_executors):
    return local_executors[2]


def test_synchronous_runs_repeat_and_replicas_have_the_same_bits(pair):
    runs = []
    for _ in range(2):
        hook = Replicas()
        options = {"workers": 2, "batch_size_per_worker": 4, "max_staleness": 0, "shuffle": True}
        parameters, _ = fit(pair, make_network("adam"), make_data(90), 3, [hook], **options)
        assert set(hook.found) == {0, 1}
        assert hook.found[0][0] == hook.found[1][0] == hashlib.sha256(parameters.tobytes()).hexdigest()
        runs.append(parameters)
    assert np.array_equal(*runs)


@pytest.mark.parametrize("staleness", [1, 4, None])
def test_replicas_are_equal_after_asynchronous_training_on_uneven_data(pair, staleness):
    hook = Replicas()
    options = {"workers": 2, "batch_size_per_worker": 4, "max_staleness": staleness}
    features, labels = make_data(37)
    network = make_network("momentum")
    parameters, result = fit(pair, network, (features, labels), 3, [hook], **options)
    assert hook.found[0] == hook.found[1]
    assert hook.found[0][0] == hashlib.sha256(parameters.tobytes()).hexdigest()
    assert result.examples == 3 * 37
    assert np.isfinite(parameters).all()


def test_sum_counts_every_update_in_full(pair):
    features, labels = make_data(20)
    order = np.concatenate([np.arange(0, 5), np.arange(10, 15), np.arange(5, 10), np.arange(15, 20)])
    doubled = sb.MultiLayerNetwork(
        make_network().module, torch.nn.CrossEntropyLoss(), lambda parameters: torch.optim.SGD(parameters, lr=0.2)
    )
    expected = plain_loop(doubled, features[order], labels[order], [10, 10])
    options = {"workers": 2, "batch_size_per_worker": 5, "encoder": "dense", "max_staleness": 0, "combine": "sum"}
    got, _ = fit(pair, make_network(), (features, labels), **options)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_buffers_of_all_members_are_averaged(pair):
    network = make_network("sgd", make_batch_norm)
    features, labels = make_data(40)
    fit(pair, network, (features, labels), 2, workers=2, batch_size_per_worker=5, max_staleness=0)
    buffers = network.state().buffers
    assert int(buffers["1.num_batches_tracked"]) == 8
    alone = make_network("sgd", make_batch_norm)
    fit(pair, alone, (features[:20], labels[:20]), 2, workers=1, batch_size_per_worker=5)
    assert not np.allclose(buffers["1.running_mean"], alone.state().buffers["1.running_mean"])


def test_a_member_without_rows_counts_for_nothing(pair):
    states = []
    for workers in (1, 2):
        network = make_network("momentum")
        options = {"workers": workers, "batch_size_per_worker": 5, "encoder": "dense", "repartitioner": "none"}
        fit(pair, network, make_data(20), 2, **options)
        states.append(network.state())
    np.testing.assert_allclose(states[1].parameters, states[0].parameters, rtol=0, atol=1e-12)
    assert states[0].updater.tensors.keys() == states[1].updater.tensors.keys()
    for name, tensor in states[0].updater.tensors.items():
        np.testing.assert_allclose(states[1].updater.tensors[name], tensor, rtol=0, atol=1e-12)


def test_states_larger_than_a_piece_travel_whole(pair, monkeypatch):
    def wide():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(6, 100_000), torch.nn.Linear(100_000, 3)).double()

    network = make_network("momentum", wide)
    hook = Replicas()
    parameters, _ = fit(pair, network, make_data(8), 1, [hook], workers=2, batch_size_per_worker=2)
    assert hook.found[0] == hook.found[1]
    assert hook.found[0][0] == hashlib.sha256(parameters.tobytes()).hexdigest()


def test_running_means_survive_a_step_that_is_left_out(pair):
    network = make_network("sgd", make_batch_norm)
    features, labels = make_data(40)
    features[13] = np.nan
    fit(pair, network, (features, labels), workers=2, batch_size_per_worker=5, on_nonfinite="skip")
    assert all(np.isfinite(buffer).all() for buffer in network.state().buffers.values())
    assert np.isfinite(network.state().parameters).all()


def test_a_threshold_that_is_too_small_slows_learning(pair):
    """An element moves at most a threshold a step: smaller ones do not come closer to the optimizer."""
    data = make_data(60)
    expected = plain_loop(make_network(), *data, batch_sizes(60, 6, "keep"), epochs=3)
    start = make_network().state().parameters
    moved = []
    for threshold in (1e-2, 1e-4, 1e-6):
        got, _ = fit(
            pair,
            make_network(),
            data,
            3,
            workers=1,
            batch_size_per_worker=6,
            threshold_algorithm={"type": "fixed", "threshold": threshold},
            residual_post_processor="none",
        )
        moved.append(np.linalg.norm(got - start) / np.linalg.norm(expected - start))
    assert moved[0] > 0.5 > moved[1] > moved[2]


def test_a_second_fit_goes_on_where_the_first_ended(pair):
    data = make_data(40)
    options = {"workers": 1, "batch_size_per_worker": 8, "shuffle": False, "rng_seed": 1, "last_batch": "keep"}
    once = make_network("adam")
    master = sb.SharedTrainingMaster(**options)
    with sb.Trainer(once, master, backend=pair) as trainer:
        trainer.fit(data, epochs=4, progress=False)
    twice = make_network("adam")
    with sb.Trainer(twice, master, backend=pair) as trainer:
        trainer.fit(data, epochs=2, progress=False)
        trainer.fit(data, epochs=2, progress=False)
    assert np.array_equal(once.state().parameters, twice.state().parameters)
    assert (once.epoch, once.iteration) == (twice.epoch, twice.iteration) == (4, 20)


class StopAfter(sb.Callback):
    def __init__(self, epochs):
        self.epochs, self.seen = epochs, []

    def on_epoch_end(self, record):
        self.seen.append(record)
        return record.epoch >= self.epochs


@pytest.mark.parametrize("workers", [1, 2])
def test_a_callback_sees_each_epochs_network_and_stops_the_fit(pair, workers):
    callback, network = StopAfter(2), make_network("momentum")
    _, result = fit(pair, network, make_data(24), 5, callbacks=[callback], workers=workers, batch_size_per_worker=4)
    assert [record.epoch for record in callback.seen] == [1, 2]
    assert len(result.epochs) == 2
    assert result.examples == 48
    assert network.epoch == 2


def test_validation_inside_the_gang_is_the_trainers_own(pair):
    data, held_out = make_data(40), make_data(33, seed=5)
    network = make_network("adam", l2=1e-3)
    master = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=5, rng_seed=1)
    with sb.Trainer(network, master, backend=pair) as trainer:
        result = trainer.fit(data, epochs=2, validation=held_out, progress=False)
        figures = result.epochs[-1].validation
        assert figures["accuracy"] == pytest.approx(trainer.evaluate(held_out).accuracy())
        assert figures["score"] == pytest.approx(trainer.calculate_score(held_out), rel=1e-9)


def test_a_member_that_raises_is_named(pair):
    class Broken(sb.TrainingHook):
        def post_update(self, batch, replica):
            if replica.iteration == 2:
                raise RuntimeError("broken on purpose")

    with pytest.raises(sb.errors.GangError, match="broken on purpose") as caught:
        fit(pair, make_network(), make_data(40), 2, [Broken()], workers=2, batch_size_per_worker=4)
    assert "post_update" in caught.value.traceback
    fit(pair, make_network(), make_data(40), workers=2, batch_size_per_worker=4)


def test_a_star_is_a_mesh_and_a_transport_is_taken_by_its_class(pair):
    options = {"max_staleness": 0, "workers": 2, "batch_size_per_worker": 4}
    star = {"transport": ZeroMQTransport, "transport_options": TransportOptions(topology="star")}
    meshed, starred = [fit(pair, make_network("sgd"), make_data(32), **options, **more) for more in ({}, star)]
    assert starred[1].examples == 32
    np.testing.assert_array_equal(meshed[0], starred[0])


def test_the_memory_transport_refuses_members_that_are_processes(pair):
    with pytest.raises(ExecutorError, match=r"threads of one process.*transport='zeromq'"):
        fit(pair, make_network("sgd"), make_data(32), transport="memory", workers=2)
