"""`Trainer.fit` with DL4J's updaters, schedules and penalties against a loop that a reader can check."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.dl4j import record, schedule, trainings_of
from helpers.networks import make_data, make_mlp
from torch import nn

import strombus as sb
from strombus.executors.local import LocalExecutor
from strombus.interchange.dl4j.training import GradientNormalization, OptimizerFactory
from strombus.partitioning import batch_sizes

NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")
BY_EPOCH = schedule("Map", scheduleType="EPOCH", values={"0": 0.05, "1": 0.02, "2": 0.01})
BY_ITERATION = schedule("Exponential", scheduleType="ITERATION", initialValue=0.05, gamma=0.9)
LAYERS = {
    "adam": {"iupdater": record("Adam", learningRateSchedule=BY_EPOCH)},
    "nesterovs": {"iupdater": record("Nesterovs", learningRateSchedule=BY_ITERATION)},
    "clipped": {
        "iupdater": record("AdaGrad"),
        "biasUpdater": record("AMSGrad"),
        "gradientNormalization": "ClipL2PerLayer",
        "gradientNormalizationThreshold": 0.05,
    },
}
L2 = {"adam": 0.05, "clipped": 0.05}


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(1) as executor:
        yield executor


def make_network(kind):
    factory = OptimizerFactory(trainings_of(LAYERS[kind], LAYERS[kind]), NAMES)
    clips = GradientNormalization(factory.trainings, NAMES) or None
    options = {"schedule": factory.schedule(), "l2": L2.get(kind, 0.0), "normalize_gradients": clips}
    return sb.MultiLayerNetwork(make_mlp, nn.CrossEntropyLoss(), factory, **options)


def plain_loop(network, data, sizes, epochs):
    """Return the parameters after a loop without Strombus, and the last minibatch's loss with its penalty."""
    module = network.copy_module()
    optimizer = network.optimizer(list(module.named_parameters()))
    clock = network.schedule(optimizer) if network.schedule else None
    features, labels = map(torch.from_numpy, data)
    for epoch in range(epochs):
        if clock:
            clock.begin_epoch(epoch)
        for rows in torch.split(torch.arange(len(labels)), list(sizes)):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(features[rows]), labels[rows])
            loss.backward()
            for layer in (module[0], module[2]) if network.normalize_gradients else ():
                norm = torch.cat([p.grad.ravel() for p in layer.parameters()]).norm()
                for parameter in layer.parameters():
                    parameter.grad *= min(1.0, 0.05 / norm)
            squares = 0.0
            for weight in (module[0].weight, module[2].weight) if network.l2 else ():
                squares += float(weight.detach().square().sum())
                weight.grad += network.l2 * weight.detach()
            optimizer.step()
            if clock:
                clock.step()
    flat = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
    return flat, loss.item() + network.l2 / 2 * squares


@pytest.mark.parametrize("master", ["averaging", "sharing"])
@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_two_fits_of_one_worker_are_the_loop(executor, kind, master):
    data, network = make_data(50), make_network(kind)
    expected, loss = plain_loop(network, data, batch_sizes(50, 8, "keep"), epochs=3)
    options = {"workers": 1, "batch_size_per_worker": 8, "shuffle": False, "last_batch": "keep"}
    if master == "averaging":
        trains = sb.ParameterAveragingTrainingMaster(averaging_frequency=2, **options)
    else:
        trains = sb.SharedTrainingMaster(encoder="dense", timeout=60, **options)
    with sb.Trainer(network, trains, backend=executor) as trainer:
        trainer.fit(data, epochs=1, progress=False)
        trainer.fit(data, epochs=2, progress=False)
        assert trainer.score == pytest.approx(loss, abs=1e-9)
    np.testing.assert_allclose(network.state().parameters, expected, rtol=0, atol=1e-12)
