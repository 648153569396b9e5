"""Uneven weights, masks, last minibatches and workers: a step, a score and a figure are those of all rows together."""

from __future__ import annotations

import functools
import sys
from itertools import chain, zip_longest

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.networks import make_mlp, make_network
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix
from torch import nn
from torch.nn import functional as F

import strombus as sb
from strombus.executors.base import Executor
from strombus.executors.local import LocalExecutor

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SGD = functools.partial(torch.optim.SGD, lr=0.1)
L2 = 0.01


class Rows(sb.TrainingHook):
    """Which rows each worker trained in each of its steps; the first feature of each is its number over 100."""

    def __init__(self):
        self.taken, self.found = [], {}

    def pre_update(self, batch, replica):
        first = np.asarray(batch.features).reshape(len(batch), -1)[:, 0]
        self.taken.append(np.rint(100 * first).astype(int).tolist())

    def state(self):
        return self.taken

    def collect(self, rank, state):
        self.found.setdefault(rank, []).extend(state)

    def steps(self):
        """Return the rows of each step, over all workers."""
        return [list(chain(*rows)) for rows in zip_longest(*self.found.values(), fillvalue=[])]


def make_sequences():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def numbered(rng, shape):
    features = rng.normal(size=shape)
    features.reshape(len(features), -1)[:, 0] = np.arange(len(features)) / 100
    return features


def joined(module, data, steps, terms, l2=L2):
    """Train on the joined minibatches by the lines that the mean is defined by; return the parameters."""
    mask = torch.from_numpy(data.labels_mask.astype(np.float64))
    for rows in steps:
        output, labels = module(torch.from_numpy(data.features[rows])), torch.from_numpy(data.labels[rows])
        found = terms(output, labels)
        weights = mask[rows].reshape(found.shape[0], -1).expand_as(found)
        value = (found * weights).sum() / weights.sum() if weights.sum() else 0 * found.sum()
        penalty = sum(one.square().sum() for one in module.parameters() if one.ndim == 2)
        (value + l2 / 2 * penalty).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.sub_(0.1 * parameter.grad)
                parameter.grad = None
    return np.concatenate([one.detach().numpy().ravel() for one in module.parameters()])


def by_class(output, labels):
    return F.cross_entropy(output, labels, reduction="none")[:, None]


def by_step(output, labels):
    return (output - labels).square().mean(2)


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as one:
        yield one


@settings(max_examples=25, deadline=None)
@given(
    workers=st.integers(1, 4),
    batch=st.integers(1, 6),
    rows=st.integers(4, 30),
    steps=st.booleans(),
    accumulate=st.integers(1, 2),
    seed=st.integers(0, 999),
)
def test_averaging_at_frequency_one_is_the_joined_minibatch(executor, workers, batch, rows, steps, accumulate, seed):
    rng = np.random.default_rng(seed)
    weights = rng.choice([0, 0.5, 1, 3.25], rows)
    if steps:
        features, labels = numbered(rng, (rows, 5, 4)), rng.normal(size=(rows, 5, 2))
        real = np.arange(5) < rng.integers(0, 6, (rows, 1))
        data = sb.DataSet(features, labels, labels_mask=real, weights=weights)
        network = sb.MultiLayerNetwork(make_sequences, nn.MSELoss(), SGD, l2=L2, accumulate=accumulate)
    else:
        data = sb.DataSet(numbered(rng, (rows, 6)), rng.integers(0, 3, rows), weights=weights)
        network = make_network(l2=L2, accumulate=accumulate)
    hook, module = Rows(), network.copy_module()
    master = sb.ParameterAveragingTrainingMaster(
        workers=workers,
        batch_size_per_worker=batch,
        averaging_frequency=1,
        rng_seed=seed,
        last_batch="keep",
        training_hooks=[hook],
    )
    sb.Trainer(network, master, executor).fit(data, progress=False)
    taken = hook.steps()
    assert sorted(chain(*taken)) == list(range(rows))
    expected = joined(module, data, taken, by_step if steps else by_class)
    np.testing.assert_allclose(network.state().parameters, expected, rtol=0, atol=1e-12)


def make_master(kind, workers, hook):
    options = {
        "workers": workers,
        "batch_size_per_worker": 5,
        "rng_seed": 2,
        "last_batch": "keep",
        "training_hooks": [hook],
    }
    if kind == "averaging":
        return sb.ParameterAveragingTrainingMaster(averaging_frequency=1, **options)
    return sb.SharedTrainingMaster(max_staleness=0, encoder="dense", timeout=60, **options)


@pytest.mark.parametrize("kind", ["averaging", "sharing"])
def test_steps_scores_and_figures_are_those_of_all_rows(backend, kind):
    rng = np.random.default_rng(1)
    weights = rng.choice([0, 0.5, 1, 3.25], 33)
    data = sb.DataSet(numbered(rng, (33, 6)), rng.integers(0, 3, 33), weights=weights)
    held_out = sb.DataSet(rng.normal(size=(29, 6)), rng.integers(0, 3, 29), weights=rng.uniform(0, 2, 29))
    network, hook = make_network(l2=L2), Rows()
    module = network.copy_module()
    alone = isinstance(backend, Executor) and backend.capacity().slots < 2
    with sb.Trainer(network, make_master(kind, 1 if alone else 2, hook), backend) as trainer:
        result = trainer.fit(data, validation=held_out, progress=False)
        score = trainer.calculate_score(held_out, batch_size=8)
        evaluation = trainer.evaluate(held_out, batch_size=8)
    taken = hook.steps()
    assert sorted(chain(*taken)) == list(range(33))
    expected = joined(module, data, taken, by_class)
    np.testing.assert_allclose(network.state().parameters, expected, rtol=0, atol=1e-12)
    output, labels = module(torch.from_numpy(held_out.features)).detach(), torch.from_numpy(held_out.labels)
    losses = F.cross_entropy(output, labels, reduction="none").numpy()
    counts = held_out.labels_mask[:, 0]
    penalty = L2 / 2 * sum(float(one.detach().square().sum()) for one in module.parameters() if one.ndim == 2)
    assert score == pytest.approx(np.average(losses, weights=counts) + penalty, rel=1e-12)
    predicted = output.numpy().argmax(1)
    matrix = confusion_matrix(held_out.labels, predicted, sample_weight=counts)
    np.testing.assert_allclose(evaluation.confusion_matrix, matrix, rtol=0, atol=1e-12)
    figures = result.epochs[-1].validation
    assert figures["score"] == pytest.approx(score, rel=1e-12)
    assert figures["accuracy"] == pytest.approx(np.average(predicted == held_out.labels, weights=counts), rel=1e-12)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.kind, self.size = make_mlp(), nn.Linear(6, 2).double()

    def forward(self, x):
        return self.kind(x), self.size(x)


def test_a_graph_is_validated_by_each_outputs_own_weights(local_executors):
    """Which no mean over the two outputs' counts gives; in the gang, and outside."""
    rng = np.random.default_rng(1)
    features, kinds, sizes = rng.normal(size=(40, 6)), rng.integers(0, 3, 40), rng.normal(size=(40, 2))
    masks = rng.uniform(0, 2, (40, 1)), rng.integers(0, 2, (40, 1)) * np.linspace(0, 5, 40)[:, None]
    data = sb.MultiDataSet([features], [kinds, sizes], None, list(masks))
    graph = sb.ComputationGraph(Two, [nn.CrossEntropyLoss(), nn.MSELoss()], SGD, loss_weights=[1, 0.5])
    master = sb.SharedTrainingMaster(workers=2, batch_size_per_worker=5, rng_seed=1)
    with sb.Trainer(graph, master, local_executors[2]) as trainer:
        result = trainer.fit(data, validation=data, progress=False)
        score = trainer.calculate_score(data, batch_size=8)
    kind, size = graph.predict(features)
    losses = (
        F.cross_entropy(*map(torch.from_numpy, (kind, kinds)), reduction="none").numpy(),
        np.square(size - sizes).mean(1),
    )
    expected = np.average(losses[0], weights=masks[0][:, 0]) + 0.5 * np.average(losses[1], weights=masks[1][:, 0])
    assert result.epochs[-1].validation["score"] == pytest.approx(expected, rel=1e-9)
    assert score == pytest.approx(expected, rel=1e-9)
