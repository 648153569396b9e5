"""A training step of one's own trains as a plain torch loop with the same lines does."""

from __future__ import annotations

import functools
import sys

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import make_data, make_mlp, make_network
from torch import nn
from torch.nn import functional as F

import strombus as sb
from strombus.errors import ConfigurationError, TaskError
from strombus.partitioning import batch_sizes

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def with_a_penalty(module, minibatch):
    """Ask for confident outputs besides right ones, which no loss of output and labels can about hidden values."""
    hidden = module[1](module[0](minibatch.features))
    return F.cross_entropy(module[2](hidden), minibatch.labels) + 0.01 * hidden.square().mean()


def over_some(module, minibatch):
    """Take the mean over the rows whose first feature is positive."""
    chosen = minibatch.features[:, 0] > 0
    terms = F.cross_entropy(module(minibatch.features), minibatch.labels, reduction="none")
    return (terms * chosen).sum() / chosen.sum().clamp(min=1), chosen.sum()


def make(step, **options):
    torch.manual_seed(0)
    return sb.MultiLayerNetwork(make_mlp, nn.CrossEntropyLoss(), SGD, training_step=step, **options)


def loop(step, features, labels, sizes, epochs=1):
    """Train with the same lines and nothing else."""
    module = make(step).copy_module()
    optimizer = SGD(module.parameters())
    for _ in range(epochs):
        start = 0
        for size in sizes:
            rows = slice(start, start + size)
            batch = sb.networks.Minibatch(torch.from_numpy(features[rows]), torch.from_numpy(labels[rows]), None, None)
            optimizer.zero_grad()
            value = step(module, batch)
            (value[0] if isinstance(value, tuple) else value).backward()
            optimizer.step()
            start += size
    return torch.cat([one.detach().flatten() for one in module.parameters()]).numpy()


def fit(backend, network, data, epochs=1, master=sb.ParameterAveragingTrainingMaster, **options):
    defaults = {"shuffle": False, "rng_seed": 1, "last_batch": "keep", "workers": 1, "batch_size_per_worker": 8}
    with sb.Trainer(network, master(**{**defaults, **options}), backend=backend) as trainer:
        return trainer.fit(data, epochs, progress=False)


@pytest.mark.parametrize("step", [with_a_penalty, over_some])
def test_one_worker_is_the_plain_loop(backend, step):
    data, network = make_data(50), make(step)
    fit(backend, network, data, 2)
    np.testing.assert_array_equal(network.state().parameters, loop(step, *data, batch_sizes(50, 8, "keep"), 2))


def test_a_member_of_shared_training_is_too(local_executors):
    data, network = make_data(40), make(with_a_penalty)
    sharing = functools.partial(sb.SharedTrainingMaster, encoder="dense", max_staleness=0)
    fit(local_executors[1], network, data, master=sharing)
    expected = loop(with_a_penalty, *data, [8] * 5)
    np.testing.assert_allclose(network.state().parameters, expected, rtol=0, atol=1e-12)


def test_workers_weigh_by_the_count_that_is_returned(local_executors):
    """Two of one round count as one minibatch of both, though one has more of the rows that count."""
    features, labels = make_data(16)
    features[:8, 0], features[8:, 0] = np.abs(features[:8, 0]), -np.abs(features[8:, 0])
    features[8, 0] = 1.0
    network = make(over_some)
    network.optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    fit(local_executors[1], network, (features, labels), workers=2, averaging_frequency=1)
    module = make(over_some).copy_module()
    batch = sb.networks.Minibatch(torch.from_numpy(features), torch.from_numpy(labels), None, None)
    over_some(module, batch)[0].backward()
    expected = torch.cat([(one.detach() - 0.1 * one.grad).flatten() for one in module.parameters()]).numpy()
    np.testing.assert_allclose(network.state().parameters, expected, rtol=0, atol=1e-12)


def test_slices_add_up_to_the_minibatch(local_executors):
    data, whole, sliced = make_data(32), make(over_some), make(over_some, accumulate=3)
    for network in (whole, sliced):
        fit(local_executors[1], network, data)
    np.testing.assert_allclose(sliced.state().parameters, whole.state().parameters, rtol=0, atol=1e-12)


def test_several_inputs_come_as_tuples(local_executors):
    def step(module, minibatch):
        (left, right), (labels,) = minibatch.features, minibatch.labels
        assert minibatch.features_mask == (None, None)
        return F.cross_entropy(module(left, right), labels)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, left, right):
            return self.layer(left + right)

    features, labels = make_data(24)
    graph = sb.ComputationGraph(Both().double(), nn.CrossEntropyLoss(), SGD, training_step=step)
    width = features.shape[1]
    graph = (
        sb.ComputationGraph(Both().double(), nn.CrossEntropyLoss(), SGD, training_step=step) if width == 6 else graph
    )
    result = fit(local_executors[1], graph, sb.MultiDataSet([features, features], [labels]))
    assert result.examples == 24


def test_labels_are_needed_only_by_who_uses_them(local_executors):
    def step(module, minibatch):
        assert minibatch.labels is None
        return module(minibatch.features).square().mean()

    network = sb.MultiLayerNetwork(nn.Linear(6, 2), optimizer=SGD, training_step=step)
    rows = np.ones((20, 6), np.float32)
    before = network.predict(rows)
    fit(local_executors[1], network, rows, 30)
    assert np.square(network.predict(rows)).mean() < 0.01 * np.square(before).mean()
    with pytest.raises(TaskError, match="the network has no loss"):
        sb.Trainer(network, None, local_executors[1]).calculate_score((np.ones((4, 6)), np.ones(4)))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda module, batch: 0.5, "must return the mean loss as a scalar tensor, or \\(loss, count\\); got float"),
        (lambda module, batch: module(batch.features), r"got \(8, 3\) float64"),
        (lambda module, batch: torch.tensor(1.0), "which does not depend on any parameter"),
        (
            lambda module, batch: (module(batch.features).mean(), "all"),
            "at least 0, got 'all'",
        ),
        (lambda module, batch: (module(batch.features).mean(), -1), "must be a number of at least 0, got -1"),
    ],
)
def test_what_is_no_loss_is_refused(local_executors, step, message):
    with pytest.raises(Exception, match=message):
        fit(local_executors[1], make(step), make_data(16))


@pytest.mark.parametrize("step", ["loss", lambda module: None])
def test_what_cannot_be_called_is_refused(step):
    with pytest.raises(ConfigurationError, match="training_step must be a function"):
        make_network(training_step=step)
