"""Handwritten digits, from arrays to a trained network: what `strombus demo` runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from strombus.data import export
from strombus.errors import ConfigurationError
from strombus.evaluation import Evaluation
from strombus.masters.shared_training import SharedTrainingMaster
from strombus.networks import MultiLayerNetwork
from strombus.trainer import Trainer

__all__ = ["digits", "make_network", "run_demo"]

Arrays = tuple[NDArray[Any], NDArray[Any]]


def digits(seed: int = 0) -> tuple[Arrays, Arrays]:
    """Return scikit-learn's 1797 digits as (train, test), each features of shape (n, 64) in 0..1 and labels.

    Raises
    ------
    ConfigurationError
        When scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigurationError("the demo's digits come with scikit-learn: pip install strombus[digits]") from None
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(features))
    features, labels = (features[order] / 16.0).astype(np.float32), labels[order].astype(np.int64)
    return (features[:1437], labels[:1437]), (features[1437:], labels[1437:])


def make_network(seed: int = 0) -> MultiLayerNetwork:
    """Return a network of 64-128-64-10 units for the digits."""

    def module() -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    optimizer = functools.partial(torch.optim.Adam, lr=2e-3)
    return MultiLayerNetwork(module, nn.CrossEntropyLoss(), optimizer)


def run_demo(
    backend: Any = "dask",
    epochs: int = 10,
    workers: int | None = 2,
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> Evaluation:
    """Export the digits, train on `backend`, evaluate on the test set and return the evaluation."""
    train, test = digits()
    with TemporaryDirectory(prefix="strombus-demo-") as folder:
        say(f"writing {len(train[0])} training and {len(test[0])} test digits as Zarr datasets")
        paths = [str(Path(folder) / name) for name in ("train.zarr", "test.zarr")]
        for arrays, path in zip((train, test), paths, strict=True):
            export(arrays, path, batch_size=32, progress=False)
        network = make_network()
        master = SharedTrainingMaster(batch_size_per_worker=16, workers=workers, rng_seed=0)
        with Trainer(network, master, backend=backend) as trainer:
            result = trainer.fit(paths[0], epochs=epochs, validation=paths[1], progress=progress)
            evaluation = trainer.evaluate(paths[1])
    say(f"trained {network.num_params():,} parameters on {result.examples:,} examples in {result.seconds:.1f} s")
    say(evaluation.stats())
    return evaluation
