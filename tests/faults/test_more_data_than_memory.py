"""Fits and scores of five times the memory that workers have left, under nannies that end who takes too much."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest
import torch
from torch import nn

import strombus as sb

pytest.importorskip("distributed", reason="distributed is not installed: the extra 'dask' brings it")
pytestmark = [
    pytest.mark.dask,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks of memory are read from /proc"),
]

cloudpickle.register_pickle_by_value(sys.modules[__name__])

MB = 1 << 20
LIMIT, BASE, GROWS, DRIVER = 800 * MB, 500 * MB, 256 * MB, 64 * MB
PARTS = 5 * (LIMIT - BASE) // (32 * MB)


def make_part():
    """32 MiB of bytes, small on disk."""
    features = np.zeros((32768, 1024), np.uint8)
    features[:, :6] = np.random.default_rng(0).integers(0, 256, (32768, 6))
    return features, features[:, :3].argmax(axis=1).astype(np.int64)


def narrow(batch):
    return sb.DataSet(batch.features[:, :6].astype(np.float32) / 255, batch.labels)


def make_module():
    torch.manual_seed(3)
    return nn.Linear(6, 3)


def peak(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def limit_of(dask_worker):
    """Return what a nanny holds its worker to, and at what part of it the worker ends."""
    manager = dask_worker.memory_manager
    return manager.memory_limit, manager.memory_terminate_fraction


@pytest.fixture(scope="module")
def limited(fast_nannies):
    """A client of two workers with a limit."""
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"distributed.worker.memory.pause": False}),  # end them, and nothing softer before
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, memory_limit=LIMIT, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def test_five_times_what_is_left(limited, local_executors, tmp_path):
    path = str(tmp_path / "part.zarr")
    sb.data.export(make_part(), path, batch_size=512, backend="local", progress=False)
    data = sb.data.open_dataset([path] * PARTS, transform=narrow)
    assert data.rows * 1024 >= 5 * (LIMIT - BASE) - 32 * MB
    optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    options = {"batch_size_per_worker": 2048, "rng_seed": 0}
    averaging = sb.ParameterAveragingTrainingMaster(averaging_frequency=20, **options)
    sharing = sb.SharedTrainingMaster(timeout=60, **options)

    def run(part):
        network = sb.MultiLayerNetwork(make_module, nn.CrossEntropyLoss(), optimizer)
        with sb.Trainer(network, averaging, backend=limited) as trainer:
            assert trainer.fit(part, progress=False).examples == part.rows
        with sb.Trainer(network, sharing, backend=limited) as trainer:
            assert trainer.fit(part, progress=False).examples == part.rows
            return network, trainer.calculate_score(part, batch_size=2048)

    run(sb.data.open_dataset(path, transform=narrow))  # what is imported and compiled stays
    pids = sorted(limited.run(os.getpid).values())
    assert sum(limited.run(lambda dask_worker: dask_worker.memory_manager.memory_limit).values()) == 2 * LIMIT
    assert limited.run(
        lambda: os.environ and float(__import__("dask").config.get("distributed.worker.memory.terminate"))
    )
    own = psutil.Process().pid
    before = {pid: psutil.Process(pid).memory_info().rss for pid in [*pids, own]}
    for pid in before:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is from now on
    network, score = run(data)
    grown = {pid: (peak(pid) - rss) / MB for pid, rss in before.items()}
    assert grown.pop(own) * MB < DRIVER
    assert max(grown.values()) * MB < GROWS
    assert sorted(limited.run(os.getpid).values()) == pids  # nobody was ended and started again
    with sb.Trainer(network, backend=local_executors[1]) as trainer:  # the same rows, once
        assert trainer.calculate_score(sb.data.open_dataset(path, transform=narrow)) == pytest.approx(score, rel=1e-5)
