"""Averaging agrees with Deeplearning4j 1.0.0-M2 on Spark, number by number (files in tests/golden/averaging)."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import strombus as sb

GOLDEN = Path(__file__).parents[1] / "golden" / "averaging"


class Dl4jAdam(torch.optim.Optimizer):
    """Adam as DL4J writes it: epsilon is added to sqrt(v) before the bias corrections."""

    def __init__(self, params, lr=0.05, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            (b1, b2), lr, eps = group["betas"], group["lr"], group["eps"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(step=torch.tensor(0.0), m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["step"] += 1
                t = float(state["step"])
                state["m"].mul_(b1).add_(p.grad, alpha=1 - b1)
                state["v"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                alpha = lr * (1 - b2**t) ** 0.5 / (1 - b1**t)
                p.sub_(alpha * state["m"] / (state["v"].sqrt() + eps))


OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1),
    "nesterovs": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "adam": Dl4jAdam,
}


def array(entry):
    return np.asarray(entry["values"], np.float64).reshape(entry["shape"])


def parameters(table):
    """DL4J's table as our vector: weights transposed, since torch keeps (outputs, inputs)."""
    return np.concatenate([array(table[f"{i}_{n}"]).T.ravel() for i in (0, 1) for n in ("W", "b")])


@pytest.mark.parametrize("updater", OPTIMIZERS)
@pytest.mark.parametrize("saved", ["save_updater", "no_updater"])
def test_parameters_after_each_fit(backend, updater, saved):
    golden = json.loads((GOLDEN / f"{updater}_{saved}.json").read_text())
    network = sb.MultiLayerNetwork(
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double(), nn.CrossEntropyLoss(), OPTIMIZERS[updater]
    )
    state = network.state()
    network.load_state(type(state)(parameters(golden["initial_param_table"]), state.buffers))
    batches = golden["minibatches_one_for_each_worker"]
    data = tuple(np.concatenate([array(batch[name]) for batch in batches]) for name in ("features", "labels"))
    master = sb.ParameterAveragingTrainingMaster(
        workers=golden["workers"],
        batch_size_per_worker=golden["batch_size_per_worker"],
        averaging_frequency=golden["averaging_frequency"],
        save_updater=golden["save_updater"],
        shuffle=False,
        rng_seed=0,
    )
    with sb.Trainer(network, master, backend=backend) as trainer:
        for after in golden["after_each_fit"]:
            trainer.fit(data, progress=False)
            got = network.state().parameters
            np.testing.assert_allclose(got, parameters(after["param_table"]), rtol=0, atol=1e-12)
            assert trainer.score == pytest.approx(after["score"], abs=1e-12)
            assert network.iteration == after["iteration_count"]
