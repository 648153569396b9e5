"""Networks, data and optimizers that shared training is measured with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from common import load_digits, make_module
from torch import nn

__all__ = ["OPTIMIZERS", "Workload", "accuracy", "make_workload"]

HELD_OUT = 1000
CLASSES = 10
OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1),
    "adam": functools.partial(torch.optim.Adam, lr=1e-3, fused=True),
}


@dataclass(frozen=True)
class Workload:
    """What is trained: ``make(seed)`` gives the module."""

    make: Callable[[int], nn.Module]
    features: np.ndarray
    labels: np.ndarray
    held_features: np.ndarray
    held_labels: np.ndarray

    @property
    def bytes(self) -> int:
        """Size of the parameters."""
        return sum(p.numel() * p.element_size() for p in self.make(0).parameters())


class Transformer(nn.Module):
    """Two encoder layers of width 64 over 32 tokens, then the mean and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(64, 64), nn.Parameter(torch.randn(32, 64) * 0.02)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(64, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.layers(self.tokens(tokens) + self.places).mean(1))


def make_cnn(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(800, 128), nn.ReLU(), nn.Linear(128, CLASSES)),
    )


def make_transformer(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Transformer()


def made_images(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of ten coarse patterns under much noise."""
    rng = np.random.default_rng(0)
    patterns = rng.random((CLASSES, 7, 7), dtype=np.float32).repeat(4, 1).repeat(4, 2).reshape(CLASSES, 784)
    labels = rng.integers(0, CLASSES, rows)
    return 0.15 * patterns[labels] + 0.85 * rng.random((rows, 784), dtype=np.float32), labels


def made_sequences(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 32 tokens a row, drawn from the distribution of the row's class."""
    rng = np.random.default_rng(0)
    chances, labels = rng.dirichlet(np.full(64, 4.0), CLASSES).cumsum(1), rng.integers(0, CLASSES, rows)
    drawn = rng.random((rows, 32, 1)) > chances[labels][:, None, :]
    return np.minimum(drawn.sum(2), 63), labels


def make_workload(network: str, digits: str | None, rows: int) -> Workload:
    """Return `rows` rows to train with, and the last rows of the data to be scored."""
    if network == "transformer":
        features, labels = made_sequences(rows + HELD_OUT)
    elif digits is None:
        features, labels = made_images(rows + HELD_OUT)
    else:
        features, labels = load_digits(digits, rows=10_000)
    make = {"mlp": make_module, "cnn": make_cnn, "transformer": make_transformer}[network]
    if network == "cnn":
        features = features.reshape(-1, 28, 28)
    rows = min(rows, len(features) - HELD_OUT)
    return Workload(make, features[:rows], labels[:rows], features[-HELD_OUT:], labels[-HELD_OUT:])


def accuracy(module: nn.Module, workload: Workload) -> float:
    """Return the share of held-out rows that the module gets right."""
    module.eval()
    with torch.no_grad():
        found = module(torch.from_numpy(workload.held_features)).argmax(1).numpy()
    return float((found == workload.held_labels).mean())
