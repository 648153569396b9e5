"""What the benchmarks share: data, the network, silent loops, and how a ratio is printed."""

from __future__ import annotations

import functools
import gzip
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

BATCH = 64


def load_digits(folder: str | None, rows: int = 9000) -> tuple[np.ndarray, np.ndarray]:
    """Return (features of shape (rows, 784) in 0..1, labels): IDX files of handwritten digits, else made ones."""
    if folder is None:
        rng = np.random.default_rng(0)
        return rng.random((rows, 784), dtype=np.float32), rng.integers(0, 10, rows)
    images, labels = (next(Path(folder).glob(f"*{kind}*")) for kind in ("idx3", "idx1"))
    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 784)
    numbers = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8).astype(np.int64)
    return pixels[:rows].astype(np.float32) / 255, numbers[:rows]


def make_module(seed: int = 0) -> nn.Module:
    """Return the 784-1024-1024-10 network, 7.4 MB of parameters."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1),
    "momentum": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
}


def plain_epochs(features: np.ndarray, labels: np.ndarray, optimizer_name: str, epochs: int) -> list[float]:
    """Train with a plain torch loop and return the seconds of each epoch."""
    module, loss = make_module(), nn.CrossEntropyLoss()
    optimizer = OPTIMIZERS[optimizer_name](module.parameters())
    inputs, targets = torch.from_numpy(features), torch.from_numpy(labels)
    seconds = []
    for epoch in range(epochs):
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(len(features)))
        started = time.perf_counter()
        for start in range(0, len(features), BATCH):
            rows = order[start : start + BATCH]
            optimizer.zero_grad()
            value = loss(module(inputs[rows]), targets[rows])
            value.backward()
            optimizer.step()
            value.item()
        seconds.append(time.perf_counter() - started)
    return seconds


def _silent(rank: int, barrier, results, features, labels, optimizer_name: str, epochs: int) -> None:
    torch.set_num_threads(1)
    half = slice(rank * len(features) // 2, (rank + 1) * len(features) // 2)
    barrier.wait(60)
    results.put(plain_epochs(features[half], labels[half], optimizer_name, epochs))


def silent_loops(features: np.ndarray, labels: np.ndarray, optimizer_name: str, epochs: int) -> float:
    """Run two plain loops side by side, each on its half and never exchanging; examples/s of both (median epoch)."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (barrier, results, features, labels, optimizer_name, epochs)
    loops = [context.Process(target=_silent, args=(rank, *arguments)) for rank in range(2)]
    for loop in loops:
        loop.start()
    times = [results.get(timeout=600) for _ in loops]
    for loop in loops:
        loop.join(60)
    return sum(len(features) / 2 / statistics.median(seconds[1:]) for seconds in times)


def paired(runs: int, ours: Callable[[], float], peer: Callable[[], float]) -> tuple[float, float, list[float]]:
    """Run both in turn; return the medians and the ratio of each pair."""
    figures = []
    for turn in range(runs):
        if turn % 2:
            there, here = peer(), ours()
        else:
            here, there = ours(), peer()
        figures.append((here, there))
    mine, theirs = zip(*figures, strict=True)
    return statistics.median(mine), statistics.median(theirs), [a / b for a, b in figures]


def print_ratio(what: str, ours: float, peer: float, ratios: Sequence[float], unit: str, target: str) -> None:
    """Print one row of the table."""
    middle = statistics.median(ratios)
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    print(f"{what:<58} {ours:>9,.0f} {peer:>9,.0f} {unit:<11} {middle:>5.2f}x ({spread})  {target}", flush=True)
