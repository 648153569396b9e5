"""Numbers that are not finite: named, left out as if the rows had not been there, or gone back from."""

from __future__ import annotations

import functools
import json
import sys

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import BACKENDS, make_data, make_network, plain_loop
from torch import nn

import strombus as sb
from strombus import CheckpointConfig
from strombus.errors import ConfigurationError, NonFiniteError, TaskError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SHARING = {"max_staleness": 0, "encoder": "dense", "residual_post_processor": "none", "timeout": 60}
OFTEN = CheckpointConfig(every="2steps", max_share=1)


class Touchy(nn.Module):
    """Batch normalisation; and a gradient that is NaN, of a loss that is finite, where the last feature is zero."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        self.scale = nn.Parameter(torch.ones(3))
        self.double()

    def forward(self, features):
        return self.layers(features) + (self.scale * features[:, 5:]).abs().sqrt()


class Parts(nn.Module):
    """A parameter that takes no part in the output."""

    def __init__(self):
        super().__init__()
        self.layer, self.idle = nn.Linear(6, 3).double(), nn.Parameter(torch.zeros(4).double())

    def forward(self, features):
        return self.layer(features)


class Enlarge(sb.TrainingHook):
    """Set a parameter to what is finite, and has a sum that is not."""

    def post_update(self, batch, replica):
        with torch.no_grad():
            replica.module.idle.fill_(1e308)


def master_of(name, policy="skip", **options):
    defaults = {"workers": 1, "batch_size_per_worker": 4, "rng_seed": 1, "shuffle": False, "last_batch": "keep"}
    options = {**defaults, "on_nonfinite": policy, **options}
    if name == "averaging":
        return sb.ParameterAveragingTrainingMaster(**options)
    return sb.SharedTrainingMaster(**{**SHARING, **options})


def fit(backend, network, master, data, epochs=1, path=None):
    run = {} if path is None else {"name": "one", "storage_path": path, "checkpoint": OFTEN}
    with sb.Trainer(network, master, backend) as trainer:
        return trainer.fit(data, epochs, progress=False, **run)


def loop_without(network, features, labels, left_out, epochs):
    """Train minibatches of 4 in a plain loop that never sees those of `left_out`; return the module."""
    module = network.copy_module()
    optimizer, loss = network.optimizer(module.parameters()), nn.CrossEntropyLoss()
    for _ in range(epochs):
        for number in range(len(features) // 4):
            if number not in left_out:
                rows = slice(4 * number, 4 * number + 4)
                optimizer.zero_grad()
                loss(module(torch.from_numpy(features[rows])), torch.from_numpy(labels[rows])).backward()
                optimizer.step()
    return module


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("name", ["averaging", "sharing"])
def test_what_is_left_out_leaves_no_trace(local_executors, tmp_path, name, optimizer, policy):
    """Neither in parameters nor optimizer nor running means, whether the loss was NaN or the gradient alone."""
    features, labels = make_data(40)
    features[13, 2], features[30, 5] = np.nan, 0.0
    network = make_network(optimizer, Touchy)
    plain = loop_without(network, features, labels, {3, 7}, epochs=2)
    result = fit(local_executors[1], network, master_of(name, policy), (features, labels), 2, tmp_path)
    state, exact = network.state(), name == "averaging"
    for tensor, wanted in zip(network.module.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, wanted, rtol=0, atol=0 if exact else 1e-12)
    assert all(np.isfinite(array).all() for array in state.updater.tensors.values())
    assert (result.skipped, [epoch.skipped for epoch in result.epochs]) == ({0: 4}, [2, 2])
    assert (result.examples, result.minibatches, state.iteration) == (80, 20, 20)
    assert np.isfinite(result.score)
    assert len(result.failures) == (4 if policy == "rollback" else 0)
    assert json.loads((tmp_path / "one" / "result.json").read_text())["skipped"] == {"0": 4}


@pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)
@pytest.mark.parametrize("name", ["averaging", "sharing"])
def test_one_workers_minibatch_on_every_backend(backend, tmp_path, name):
    """The second step is that of the other worker alone: what is left out has no weight."""
    features, labels = make_data(20)
    features[17] = np.nan
    order = np.r_[0:5, 10:15, 5:10]
    expected = plain_loop(make_network(), features[order], labels[order], [10, 5])
    options = {"workers": 2, "batch_size_per_worker": 5}
    options |= {"averaging_frequency": 1} if name == "averaging" else {}
    with pytest.raises(
        TaskError, match=r"worker 1, epoch 1: the loss became nan in minibatch 1: .*features 6"
    ) as caught:
        fit(backend, make_network(), master_of(name, "raise", **options), (features, labels))
    assert isinstance(caught.value.__cause__, NonFiniteError)
    for policy in ("skip", "rollback"):
        network, path = make_network(), None if policy == "skip" else tmp_path
        result = fit(backend, network, master_of(name, policy, **options), (features, labels), path=path)
        np.testing.assert_allclose(network.state().parameters, expected, rtol=0, atol=1e-12)
        assert (result.skipped, result.examples) == ({1: 1}, 20)
    assert len(result.failures) == 1
    assert "worker 1, epoch 1" in result.failures[0]


@pytest.mark.dask
@pytest.mark.parametrize("name", ["averaging", "sharing"])
def test_from_an_engines_memory_the_same_is_left_out_by_either_policy(dask_client, tmp_path, name):
    import dask.bag

    features, labels = make_data(60)
    features[[7, 33, 50]] = np.nan
    objects = [sb.DataSet(features[start : start + 10], labels[start : start + 10]) for start in range(0, 60, 10)]
    found = []
    for policy in ("skip", "rollback"):
        master = master_of(name, policy, workers=2, rdd_training_approach="Direct", shuffle=True)
        network, bag = make_network("adam"), dask.bag.from_sequence(objects, npartitions=3)
        result = fit(dask_client, network, master, bag, 2, None if policy == "skip" else tmp_path)
        found.append((network.state().parameters, result.skipped))
    np.testing.assert_array_equal(found[1][0], found[0][0])
    assert found[1][1] == found[0][1]
    assert 4 <= len(result.failures) == sum(result.skipped.values()) <= 6  # two bad rows may share a minibatch


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_a_round_without_one_worker_is_the_others(local_executors, weighting):
    features, labels = make_data(20)
    features[10:] = np.nan
    expected = plain_loop(make_network("adam"), features[:10], labels[:10], [5, 5])
    network = make_network("adam")
    master = master_of("averaging", workers=2, batch_size_per_worker=5, weighting=weighting)
    assert fit(local_executors[1], network, master, (features, labels)).skipped == {1: 2}
    np.testing.assert_allclose(network.state().parameters, expected, rtol=1e-15, atol=0)
    assert float(network.updater.tensors["0.step"]) == 2


def test_a_member_that_trains_nothing_weighs_nothing_at_the_end(local_executors):
    """Neither in running means nor in the optimizers' mean."""
    features, labels = make_data(40)
    features[20:] = np.nan
    found = []
    for workers, rows in ((2, 40), (1, 20)):
        network = make_network("momentum", Touchy)
        master = master_of("sharing", workers=workers)
        fit(local_executors[2], network, master, (features[:rows], labels[:rows]), 2)
        found.append(network.state())
    two, one = found
    np.testing.assert_allclose(two.parameters, one.parameters, rtol=0, atol=1e-12)
    for name, array in one.buffers.items():
        np.testing.assert_allclose(two.buffers[name], array, rtol=0, atol=1e-12, err_msg=name)
    for name, array in one.updater.tensors.items():
        np.testing.assert_allclose(two.updater.tensors[name], array, rtol=0, atol=1e-12, err_msg=name)


def test_a_round_that_nobody_trains_changes_nothing(local_executors):
    features, labels = make_data(20)
    features[[2, 12]] = np.nan
    network = make_network("adam")
    master = master_of("averaging", workers=2, batch_size_per_worker=5, averaging_frequency=1)
    result = fit(local_executors[1], network, master, (features, labels))
    halves = [plain_loop(make_network("adam"), features[a : a + 5], labels[a : a + 5], [5]) for a in (5, 15)]
    np.testing.assert_allclose(network.state().parameters, np.mean(halves, axis=0), rtol=0, atol=1e-15)
    assert (result.skipped, np.isfinite(result.score)) == ({0: 1, 1: 1}, True)


@pytest.mark.parametrize("name", ["averaging", "sharing"])
def test_an_epoch_in_which_nothing_is_left_is_an_error(local_executors, name):
    features, labels = make_data(20)
    with pytest.raises((NonFiniteError, TaskError), match="all 5 minibatches of epoch 1 were left out"):
        fit(local_executors[1], make_network(), master_of(name), (features * np.inf, labels))


@pytest.mark.parametrize("name", ["averaging", "sharing"])
def test_going_back_is_bounded(local_executors, tmp_path, name):
    features, labels = make_data(40)
    features[::4] = np.nan
    master = master_of(name, "rollback", max_rollbacks=2)
    with pytest.raises(TaskError, match="became nan in minibatch 2") as caught:
        fit(local_executors[1], make_network(), master, (features, labels), path=tmp_path)
    assert caught.value.__notes__ == ["the fit went back to its last checkpoint 2 times (option `max_rollbacks`)"]


@pytest.mark.parametrize("name", ["averaging", "sharing"])
def test_an_update_that_overflows_can_be_gone_back_from_alone(local_executors, tmp_path, name):
    """The first gradient is finite, and so is its norm; times the learning rate it is not."""
    features, targets = make_data(20, dtype=np.float32)[0], np.zeros((20, 3), np.float32)
    features[2, 0] = 1e18

    def make():
        torch.manual_seed(0)
        return sb.MultiLayerNetwork(nn.Linear(6, 3), nn.L1Loss(), functools.partial(torch.optim.SGD, lr=1e22))

    with pytest.raises(
        TaskError, match=r"worker 0, epoch 1: the (update became|loss became inf in minibatch 1: the parameters)"
    ):
        fit(local_executors[1], make(), master_of(name), (features, targets))
    network = make()
    result = fit(local_executors[1], network, master_of(name, "rollback"), (features, targets), path=tmp_path)
    assert result.skipped == {0: 1}
    plain = make().module
    optimizer = torch.optim.SGD(plain.parameters(), lr=1e22)
    for start in range(4, 20, 4):
        optimizer.zero_grad()
        rows = slice(start, start + 4)
        nn.functional.l1_loss(plain(torch.from_numpy(features[rows])), torch.from_numpy(targets[rows])).backward()
        optimizer.step()
    torch.testing.assert_close(network.module.weight, plain.weight, rtol=1e-6, atol=0)


def test_a_mean_that_overflows_is_named(local_executors, tmp_path):
    network = make_network("sgd", Parts)
    for policy in ("raise", "rollback"):
        master = master_of("averaging", policy, workers=2, averaging_frequency=2, training_hooks=[Enlarge()])
        with pytest.raises(
            NonFiniteError, match=r"epoch 1: the mean of the workers' parameters after round 0"
        ) as caught:
            fit(local_executors[1], network, master, make_data(40), path=tmp_path if policy == "rollback" else None)
    assert "no minibatch is at fault" in caught.value.__notes__[0]


def test_what_cannot_be_done_is_refused(local_executors):
    for name in ("averaging", "sharing"):
        with pytest.raises(ConfigurationError, match=r"needs checkpoints to go on from: give the fit a name"):
            fit(local_executors[1], make_network(), master_of(name, "rollback"), make_data(20))
    network = sb.MultiLayerNetwork(nn.Linear(6, 3).double(), nn.CrossEntropyLoss(), torch.optim.LBFGS)
    with pytest.raises(ConfigurationError, match=r"LBFGS evaluates the loss several times .* needs another optimizer"):
        fit(local_executors[1], network, master_of("averaging"), make_data(20))
