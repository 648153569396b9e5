"""What was not sent in one fit is sent in the next, whoever trains it and whatever was frozen meanwhile.

The loss is linear in the parameters, so that what all fits together must add to them is known: a last fit without
compression sends what is left.
"""

from __future__ import annotations

import functools
import sys

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

import strombus as sb
from strombus.errors import ConfigurationError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

BATCH = 4


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.early = nn.Parameter(torch.zeros(6, 1).double())
        self.late = nn.Parameter(torch.zeros(6, 1).double())

    def forward(self, features):
        return features @ self.early + 2 * features @ self.late


def rows(count, seed=0):
    """Return features, and labels so far below that the absolute error's gradient is the features' mean."""
    return np.random.default_rng(seed).normal(size=(count, 6)), np.full((count, 1), -1e6)


def mean_step(data):
    """Return what a member's optimizer adds to ``early`` for all `data`, as one minibatch after another."""
    return -data[0].sum(axis=0) / min(BATCH, len(data[0]))


def make_trainer(executor, module=Two):
    network = sb.MultiLayerNetwork(module, nn.L1Loss(), functools.partial(torch.optim.SGD, lr=1.0))
    return sb.Trainer(network, None, backend=executor)


def fit(trainer, data, workers, combine, **options):
    threshold = sb.FixedThresholdAlgorithm(threshold=0.3)
    defaults = {"threshold_algorithm": threshold, "residual_post_processor": "none", "max_staleness": 0}
    trainer.master = sb.SharedTrainingMaster(
        workers=workers, combine=combine, batch_size_per_worker=BATCH, rng_seed=1, timeout=60, **{**defaults, **options}
    )
    trainer.fit(data, progress=False)


def values(trainer):
    return [one.detach().numpy()[:, 0].copy() for one in trainer.network.module.parameters()]


@pytest.mark.parametrize(("combine", "scope"), [("mean", "tensor"), ("sum", "model")])
def test_another_number_of_workers_takes_up_what_was_not_sent(local_executors, combine, scope):
    trainer, wanted = make_trainer(local_executors[2]), np.zeros(6)
    # With one row the second of two workers has nothing to train, and still holds its part.
    for number, (workers, count) in enumerate([(2, 40), (1, 20), (2, 1), (2, 24), (1, BATCH)]):
        data = rows(count, number)
        fit(trainer, data, workers, combine, threshold_scope=scope)
        wanted += mean_step(data) / (workers if combine == "mean" and count > 1 else 1)
    assert np.abs(values(trainer)[0] - wanted).max() > 0.01  # something is left
    data = rows(40, 9)
    fit(trainer, data, 2, combine, encoder="dense")
    wanted += mean_step(data) / (2 if combine == "mean" else 1)
    early, late = values(trainer)
    np.testing.assert_allclose(early, wanted, rtol=0, atol=1e-9)
    np.testing.assert_allclose(late, 2 * wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_what_was_left_for_frozen_parameters_waits_for_them(local_executors, scope):
    trainer, wanted = make_trainer(local_executors[2]), {"early": np.zeros(6), "late": np.zeros(6)}
    for number, frozen in enumerate([None, "early", "late", None]):
        for name, parameter in trainer.network.module.named_parameters():
            parameter.requires_grad_(name != frozen)
        data, before = rows(40, number), values(trainer)
        encoder = "dense" if number == 3 else "threshold"
        fit(trainer, data, 2, "mean", threshold_scope=scope, encoder=encoder)
        for factor, name, old, new in zip((1, 2), wanted, before, values(trainer), strict=True):
            if name == frozen:
                assert np.array_equal(old, new)
            else:
                wanted[name] += factor * mean_step(data) / 2
    for name, got in zip(wanted, values(trainer), strict=True):
        np.testing.assert_allclose(got, wanted[name], rtol=0, atol=1e-9)


def test_momentum_goes_on_for_what_stays_trained(local_executors):
    """A fit with one layer frozen, then one with both, are what a plain loop does with an optimizer for each layer."""
    network = sb.MultiLayerNetwork(Two, nn.L1Loss(), functools.partial(torch.optim.SGD, lr=1.0, momentum=0.5))
    trainer, data = sb.Trainer(network, None, backend=local_executors[1]), rows(8)
    plain = Two()
    optimizers = {name: torch.optim.SGD([one], lr=1.0, momentum=0.5) for name, one in plain.named_parameters()}
    for trained in (["late"], ["early", "late"]):
        for name, parameter in network.module.named_parameters():
            parameter.requires_grad_(name in trained)
        fit(trainer, data, 1, "mean", encoder="dense", shuffle=False)
        for start in range(0, 8, BATCH):
            plain.zero_grad()
            piece = slice(start, start + BATCH)
            nn.functional.l1_loss(plain(torch.from_numpy(data[0][piece])), torch.from_numpy(data[1][piece])).backward()
            for name in trained:
                optimizers[name].step()
    for got, one in zip(values(trainer), plain.parameters(), strict=True):
        np.testing.assert_allclose(got, one.detach().numpy()[:, 0], rtol=0, atol=1e-12)


def test_a_parameter_of_another_size_is_refused_before_anything_starts(local_executors):
    trainer = make_trainer(local_executors[1], Two())
    fit(trainer, rows(8), 1, "mean")
    trainer.network.module.early = nn.Parameter(torch.zeros(7, 1).double())
    with pytest.raises(ConfigurationError, match="6 elements for parameter early, which has 7 now: make a new Trainer"):
        fit(trainer, rows(8), 1, "mean")
