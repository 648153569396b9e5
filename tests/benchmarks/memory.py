"""What training, validation and export of more data than memory take of it: driver, scheduler and workers on Dask.

python tests/benchmarks/memory.py [--limit 1000] [--times 1.25 2.5 5] [--only averaging]

Two workers of one thread with `--limit` MB each, and nannies that end a worker above 95 % of it. The data is `--times`
a worker's limit. It is compressible, and made of one part read many times under as many numbers, so that it takes
little disk and all the decoding. Prints by how much the peak of each process grew above what it held before, at each
size, and ends with an error where a growth is above its bound or a worker was started again.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import psutil
import torch
from scoring import Peaks
from torch import nn

import strombus as sb

WIDTH, PART = 1024, 32 << 20
ROWS = PART // WIDTH
BATCH = 512
BOUNDS = {"driver": 64, "scheduler": 64, "worker": 256}
"""MB: the network has 0.03 MB of parameters; a worker may hold two windows of 32 MB and 64 MB of decoded blocks."""


def piece(number: int) -> sb.DataSet:
    """Return one part's rows: 32 MiB of bytes that zstd makes small."""
    features = np.zeros((ROWS, WIDTH), np.uint8)
    features[:, : 1 + number % 7] = 1 + np.arange(ROWS)[:, None] % 5
    return sb.DataSet(features, np.arange(ROWS) % 5)


def pieces(count: int, rank: int, workers: int):
    """Yield a worker's part of a stream."""
    for number in range(rank, count, workers):
        yield piece(number)


def make_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, 5)


def make_network() -> sb.MultiLayerNetwork:
    return sb.MultiLayerNetwork(make_module, nn.CrossEntropyLoss(), functools.partial(torch.optim.SGD, lr=1e-4))


def flows(client, path: str, folder: Path) -> dict[str, Callable[[int], int]]:
    """Return what is measured: each takes a number of parts, and returns the rows that it went through."""
    import dask.bag as db

    averaging = sb.ParameterAveragingTrainingMaster(batch_size_per_worker=BATCH, averaging_frequency=20, rng_seed=0)
    sharing = sb.SharedTrainingMaster(batch_size_per_worker=BATCH, rng_seed=0)

    def fit(master, count: int, **options) -> int:
        with sb.Trainer(make_network(), master, backend=client) as trainer:
            return trainer.fit([path] * count, progress=False, **options).examples

    def stream(count: int) -> int:
        steps = count * ROWS // (2 * BATCH)
        with sb.Trainer(make_network(), averaging, backend=client) as trainer:
            made = functools.partial(pieces, count)
            return trainer.fit(made, steps_per_epoch=steps, progress=False).examples

    def validate(count: int) -> int:
        with sb.Trainer(make_network(), backend=client) as trainer:
            return trainer.evaluate([path] * count).examples

    def export(count: int) -> int:
        bag = db.from_sequence(range(count), npartitions=count).map(piece)
        manifest = sb.data.export(
            bag, folder / "exported.zarr", backend=client, batch_size=BATCH, overwrite=True, progress=False
        )
        return manifest.examples

    return {
        "averaging": functools.partial(fit, averaging),
        "sharing": functools.partial(fit, sharing),
        "stream": stream,
        "validation": validate,
        "export": export,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=1000, help="MB of a worker")
    parser.add_argument("--times", type=float, nargs="+", default=[1.25, 2.5, 5])
    parser.add_argument("--only", nargs="+", help="flows to measure")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "part.zarr")
        sb.data.export(piece(0), path, batch_size=BATCH, progress=False)
        if not measure(args, path, Path(folder)):
            raise SystemExit("a bound was not kept")


def measure(args: argparse.Namespace, path: str, folder: Path) -> bool:
    from distributed import Client
    from distributed.deploy.subprocess import SubprocessCluster

    kept = True
    limit = args.limit * 10**6
    with (
        SubprocessCluster(
            n_workers=2,
            scheduler_kwargs={"dashboard_address": None},
            worker_kwargs={"nthreads": 1, "memory_limit": limit},
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        pids = sorted(client.run(os.getpid).values())
        print(f"{'':<12} {'data MB':>8} {'rows':>10} {'s':>6}   growth of the peak, MB: driver  scheduler  worker")
        for name, flow in flows(client, path, folder).items():
            if args.only and name not in args.only:
                continue
            flow(2)  # what is imported and kept for good is there
            for times in args.times:
                count = round(times * limit / PART)
                seen = {
                    "driver": Peaks([psutil.Process().pid]),
                    "scheduler": Peaks([client.run_on_scheduler(os.getpid)]),
                    "worker": Peaks(pids),
                }
                started = time.perf_counter()
                assert flow(count) == count * ROWS
                seconds = time.perf_counter() - started
                grown = {who: peaks.grown() for who, peaks in seen.items()}
                size = f"{count * PART / 1e6:>8,.0f} {count * ROWS:>10,} {seconds:>6.1f}"
                figures = "".join(f"{grown[who]:>11,.0f}" for who in BOUNDS)
                print(f"{name:<12} {size} {figures:>49}", flush=True)
                kept &= all(grown[who] <= bound for who, bound in BOUNDS.items())
        kept &= sorted(client.run(os.getpid).values()) == pids
    print(f"{'bound':<39} {''.join(f'{bound:>11,}' for bound in BOUNDS.values()):>49}")
    return kept


if __name__ == "__main__":
    main()
