"""Small networks, data and backends that several tests use; at module level, so that workers can have them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

import strombus as sb

BACKENDS = [
    "local-1",
    "local-2",
    pytest.param("dask", marks=pytest.mark.dask),
    pytest.param("spark", marks=pytest.mark.spark),
]


def make_mlp(dtype=torch.float64):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def make_mlp32():
    return make_mlp(torch.float32)


def make_batch_norm():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)).double()


OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1),
    "momentum": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": functools.partial(torch.optim.Adam, lr=0.01),
}


def make_network(optimizer="sgd", module=make_mlp, **options):
    return sb.MultiLayerNetwork(module, nn.CrossEntropyLoss(), OPTIMIZERS[optimizer], **options)


def make_data(rows, seed=0, dtype=np.float64):
    """Return (features of shape (rows, 6), class numbers below 3)."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 6)).astype(dtype)
    return features, (features[:, :3].argmax(axis=1)).astype(np.int64)


def plain_loop(network, features, labels, batch_sizes, epochs=1):
    """Train a copy of the module without Strombus's loop; return its parameters as one vector."""
    module = network.copy_module()
    optimizer = network.optimizer(module.parameters())
    loss = nn.CrossEntropyLoss()
    features, labels = torch.from_numpy(features), torch.from_numpy(labels)
    for _ in range(epochs):
        start = 0
        for size in batch_sizes:
            optimizer.zero_grad()
            loss(module(features[start : start + size]), labels[start : start + size]).backward()
            optimizer.step()
            start += size
    return np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])


def load_file(path):
    """Read an npz file of features and labels."""
    with np.load(path) as arrays:
        return sb.DataSet(arrays["features"], arrays["labels"])


def load_multi(path):
    """Read it as an object for a graph."""
    rows = load_file(path)
    return sb.MultiDataSet([rows.features], [rows.labels])
