"""DL4J's losses: scores and gradients against NumPy written from what DL4J's own code computes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.dl4j_models import chain, layer, loss

import strombus as sb
from strombus.errors import DataError
from strombus.interchange.dl4j.models import make_model
from strombus.networks.losses import Loss

RNG = np.random.default_rng(5)
N, C, T = 4, 3, 5
Z = RNG.normal(size=(N, C))
CLASSES = np.eye(C)[[0, 2, 1, 1]]
SIGNS = np.where(RNG.random((N, C)) < 0.5, -1.0, 1.0)
YES = (SIGNS + 1) / 2
VALUES = RNG.random((N, C)) + 0.5
SHARES = VALUES / VALUES.sum(1, keepdims=True)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def cosine(p, y):
    lengths = [np.linalg.norm(v, axis=1, keepdims=True) for v in (p, y)]
    return -p * y / lengths[0] / lengths[1]


# name, activation, its function, labels, terms
CASES = [
    ("LossMCXENT", "Softmax", softmax, CLASSES, lambda p, y: -y * np.log(p)),
    ("LossMCXENT", "Sigmoid", sigmoid, CLASSES, lambda p, y: -y * np.log(p)),
    ("LossNegativeLogLikelihood", "Softmax", softmax, CLASSES, lambda p, y: -y * np.log(p)),
    ("LossBinaryXENT", "Sigmoid", sigmoid, YES, lambda p, y: -(y * np.log(p) + (1 - y) * np.log(1 - p))),
    ("LossCosineProximity", "Identity", lambda z: z, VALUES, cosine),
    ("LossHinge", "Identity", lambda z: z, SIGNS, lambda p, y: np.maximum(0, 1 - p * y)),
    ("LossSquaredHinge", "Identity", lambda z: z, SIGNS, lambda p, y: np.maximum(0, 1 - p * y) ** 2),
    ("LossKLD", "Softmax", softmax, SHARES, lambda p, y: y * np.log(y / p)),
    ("LossL1", "TanH", np.tanh, VALUES, lambda p, y: np.abs(p - y)),
    ("LossL2", "TanH", np.tanh, VALUES, lambda p, y: (p - y) ** 2),
    ("LossMAE", "TanH", np.tanh, VALUES, lambda p, y: np.abs(p - y) / C),
    ("LossMSE", "Identity", lambda z: z, VALUES, lambda p, y: (p - y) ** 2 / C),
    ("LossMAPE", "Identity", lambda z: z, VALUES, lambda p, y: 100 / C * np.abs((y - p) / y)),
    ("LossMSLE", "Sigmoid", sigmoid, VALUES, lambda p, y: np.log((p + 1) / (y + 1)) ** 2 / C),
    ("LossPoisson", "Sigmoid", sigmoid, VALUES, lambda p, y: p - y * np.log(p)),
    ("LossWasserstein", "Identity", lambda z: z, SIGNS, lambda p, y: p * y / C),
]
IDS = [f"{case[0]}-{case[1]}" for case in CASES]


def made(name, act, kind="LossLayer", **options):
    configuration = chain(layer(kind, act, lossFn=loss(name, **options)))
    model = make_model(json.dumps(configuration), "model.zip")
    return model.module, Loss(model.losses[0])


def numeric(function, z, step=1e-6):
    """Return the gradient of a sum by differences."""
    gradient = np.empty_like(z)
    for place in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up).sum() - function(down).sum()) / (2 * step)
    return gradient


@pytest.mark.parametrize(("name", "act", "function", "labels", "terms"), CASES, ids=IDS)
def test_score_and_gradient(name, act, function, labels, terms):
    module, objective = made(name, act)
    z = torch.tensor(Z, requires_grad=True)
    score, count = objective.mean(module(z), torch.tensor(labels))
    score.backward()
    wanted = terms(function(Z), labels).sum(1)
    assert count == N
    np.testing.assert_allclose(score.item(), wanted.mean(), rtol=1e-10)
    each = objective.per_example(module(z), torch.tensor(labels)).detach()
    np.testing.assert_allclose(each, wanted, rtol=1e-10)
    gradient = numeric(lambda point: terms(function(point), labels), Z)
    np.testing.assert_allclose(z.grad * N, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "act", "function", "labels", "terms"), CASES, ids=IDS)
def test_time_steps_are_summed_and_masks_leave_them_out(name, act, function, labels, terms):
    module, objective = made(name, act, "RnnLossLayer")
    z = RNG.normal(size=(N, C, T))
    mask = (np.arange(T) < np.array([[5], [3], [1], [0]])).astype(float)
    wide = np.repeat(labels[:, :, None], T, 2)
    output = module(torch.tensor(z), torch.tensor(mask))
    score, count = objective.mean(output, torch.tensor(wide), torch.tensor(mask))
    steps = [terms(function(z[:, :, t]), labels).sum(1) * mask[:, t] for t in range(T)]
    assert count == N  # DL4J divides by the examples, whatever the masks leave
    np.testing.assert_allclose(score.item(), np.sum(steps) / N, rtol=1e-10)
    figures = objective.per_example(output, torch.tensor(wide), torch.tensor(mask))
    np.testing.assert_allclose(figures, np.sum(steps, 0), rtol=1e-10, atol=1e-12)
    assert objective.takes(output, torch.tensor(wide), torch.tensor(mask))
    rows = torch.tensor([1.0, 0, 1, 0], dtype=torch.float64)
    by_row = objective.per_example(output, torch.tensor(wide), rows[:, None])
    assert (by_row[[1, 3]] == 0).all()
    assert by_row[0] == objective.per_example(output, torch.tensor(wide))[0]


def test_class_numbers_and_weights():
    module, sparse = made("LossSparseMCXENT", "Softmax", weights=[1.0, 2.0, 0.5])
    _, dense = made("LossMCXENT", "Softmax", weights=[1.0, 2.0, 0.5])
    output, numbers = module(torch.tensor(Z)), torch.tensor([0, 2, 1, 1])
    wanted = -np.log(softmax(Z)[np.arange(N), numbers]) * np.array([1.0, 0.5, 2.0, 2.0])
    for labels in (numbers, numbers[:, None].double()):
        np.testing.assert_allclose(sparse.per_example(output, labels), wanted, rtol=1e-12)
    np.testing.assert_allclose(dense.per_example(output, torch.tensor(CLASSES)), wanted, rtol=1e-12)
    with pytest.raises(DataError, match=r"LossMCXENT cannot compare output .*labels of the output's shape are wanted"):
        dense.per_example(output, numbers)


def test_a_certain_and_wrong_probability_still_moves():
    module, objective = made("LossMCXENT", "Softmax", softmaxClipEps=1e-10)
    z = torch.tensor([[60.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    score, _ = objective.mean(module(z), torch.tensor([[0.0, 1.0, 0.0]]))
    score.backward()
    assert score.item() == pytest.approx(-np.log(1e-10))  # clipped, as DL4J's score is
    np.testing.assert_allclose(z.grad, [[1, -1, 0]], atol=1e-12)  # its gradient is not
    module, objective = made("LossBinaryXENT", "Sigmoid", clipEps=1e-3)
    z = torch.tensor([[20.0]], dtype=torch.float64, requires_grad=True)
    score, _ = objective.mean(module(z), torch.tensor([[0.0]]))
    score.backward()
    p, slope = 1 - 1e-3, sigmoid(20.0) * (1 - sigmoid(20.0))
    assert score.item() == pytest.approx(-np.log(1e-3))
    np.testing.assert_allclose(z.grad, [[p / (p * (1 - p)) * slope]], rtol=1e-6)


def test_a_loss_that_masks_itself_needs_no_dl4j():
    class Largest(torch.nn.Module):
        judges = "values"

        def per_example(self, output, labels, mask):
            terms = (output - labels).abs()
            return (terms if mask is None else terms * mask).amax(1)

        def forward(self, output, labels):
            return self.per_example(output, labels, None)

    network = sb.MultiLayerNetwork(torch.nn.Identity(), Largest(), device="cpu")
    x, y = np.zeros((2, 3), np.float32), np.array([[1, 5, 2], [3, 1, 1]], np.float32)
    mask = np.array([[1, 0, 1], [0, 1, 1]], np.float32)
    assert network.replica().score(sb.DataSet(x, y)) == (4.0, 2.0)
    assert network.replica().score(sb.DataSet(x, y, labels_mask=mask)) == (1.5, 2.0)
    assert network.replica().per_example(sb.DataSet(x, y, labels_mask=mask)).tolist() == [2, 1]


def test_images_are_judged_pixel_by_pixel():
    module, objective = made("LossMCXENT", "Softmax", "CnnLossLayer")
    z, classes = RNG.normal(size=(2, C, 2, 3)), RNG.integers(0, C, (2, 2, 3))
    labels = np.eye(C)[classes].transpose(0, 3, 1, 2)
    e = np.exp(z)
    terms = -np.log(e / e.sum(1, keepdims=True)) * labels
    output = module(torch.tensor(z))
    np.testing.assert_allclose(output.sum(1), 1)
    mask = np.array([1.0, 0.0]).reshape(2, 1, 1, 1)
    figures = [objective.per_example(output, torch.tensor(labels), m) for m in (None, torch.tensor(mask))]
    np.testing.assert_allclose(figures[0], terms.sum((1, 2, 3)))
    np.testing.assert_allclose(figures[1], (terms * mask).sum((1, 2, 3)))
