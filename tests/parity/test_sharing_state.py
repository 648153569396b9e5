"""What shared training leaves behind: after an error, after updates that are not finite, and to go on from."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.compression import Compression, Compressor
from strombus.executors.local import LocalExecutor

OPTIMIZERS = {
    "fused": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "on the residual": functools.partial(torch.optim.RMSprop, lr=0.01),
    "reads parameters": functools.partial(torch.optim.RMSprop, lr=0.01, weight_decay=0.1),
}


class Idle(torch.nn.Module):
    """A module with a parameter that has no part in its output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.used, self.idle = torch.nn.Linear(6, 3).double(), torch.nn.Parameter(torch.ones(4).double())

    def forward(self, features):
        return self.used(features)


class BreakGradient(sb.TrainingHook):
    """Have the third minibatch's gradients be infinite, with a loss that is finite."""

    def __init__(self):
        self.seen = 0

    def pre_update(self, batch, replica):
        self.seen += 1
        parameter = next(replica.module.parameters())
        if self.seen == 3:
            self.handle = parameter.register_hook(lambda gradient: gradient * float("inf"))
        elif self.seen == 4:
            self.handle.remove()


def fit(executor, network, hooks=(), **options):
    master = sb.SharedTrainingMaster(batch_size_per_worker=4, rng_seed=1, training_hooks=hooks, **options)
    with sb.Trainer(network, master, backend=executor) as trainer:
        return trainer.fit(make_data(40), epochs=1, progress=False)


@pytest.fixture(scope="module")
def alone():
    with LocalExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_fit_that_ends_at_an_infinite_update_leaves_the_network_as_it_was(alone, optimizer):
    network = sb.MultiLayerNetwork(make_network().module, torch.nn.CrossEntropyLoss(), optimizer)
    fit(alone, network)
    before = network.state()
    with pytest.raises(sb.errors.GangError, match="on_nonfinite"):
        fit(alone, network, [BreakGradient()])
    after = network.state()
    assert np.array_equal(before.parameters, after.parameters)
    for name, tensor in before.updater.tensors.items():
        assert np.array_equal(tensor, after.updater.tensors[name])
    fit(alone, network)
    assert np.isfinite(network.state().parameters).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_infinite_update_is_left_out_where_asked(alone, optimizer):
    network = sb.MultiLayerNetwork(make_network().module, torch.nn.CrossEntropyLoss(), optimizer)
    result = fit(alone, network, [BreakGradient()], on_nonfinite="skip")
    assert result.minibatches == 10
    assert np.isfinite(network.state().parameters).all()


@pytest.mark.parametrize("on_nonfinite", ["raise", "skip"])
def test_parameters_without_a_gradient_stay(alone, on_nonfinite):
    network = sb.MultiLayerNetwork(Idle, torch.nn.CrossEntropyLoss(), OPTIMIZERS["fused"])
    fit(alone, network, on_nonfinite=on_nonfinite)
    assert torch.equal(network.module.idle.detach(), torch.ones(4).double())


def test_nan_in_parameters_alone_raises(alone):
    network = make_network()
    with torch.no_grad():
        next(network.module.parameters())[0, 0] = float("nan")
    with pytest.raises(sb.errors.GangError, match=r"the parameters were NaN or infinite before it \(0\.weight 1\)"):
        fit(alone, network)


def steps(replica, compressor, batches):
    sent = []
    for batch in batches:
        replica.gradients(batch)
        sent.append(bytes(compressor.step_(replica.optimizer).payload))
        replica.advance()
        compressor.apply_own_(0.5)
        compressor.apply_(sent[-1], 0.5)
    return sent


@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_a_member_goes_on_from_its_saved_state_bit_for_bit(name, scope):
    features, labels = make_data(80)
    batches = [sb.DataSet(features[i : i + 4], labels[i : i + 4]) for i in range(0, 80, 4)]
    options = Compression(threshold_scope=scope)

    def member():
        replica = make_network(name).replica()
        return replica, Compressor(options, list(replica.flat.parameters), replica.flat.vector)

    through, compressor = member()
    wanted = steps(through, compressor, batches)
    first, stopped = member()
    got = steps(first, stopped, batches[:7])
    second, resumed = member()
    second.load(first.state())
    resumed.load(stopped.state())
    got += steps(second, resumed, batches[7:])
    assert got == wanted
    assert np.array_equal(second.state().parameters, through.state().parameters)
    assert np.array_equal(resumed.state().residual, compressor.state().residual)
    assert resumed.state().thresholds == compressor.state().thresholds
