"""Scoring on Dask, two workers of one thread, against two silent loops over halves of the same Zarr dataset.

python tests/benchmarks/scoring.py [--rows 10000000] [--runs 3]

Prints rows/s of both and their ratio, then by how much the largest worker and the driver grew while they scored.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import psutil
import torch
from common import paired, print_ratio
from torch import nn

import strombus as sb
from strombus.data import epoch_order, open_dataset, read_batches

INPUTS, CLASSES = 20, 10
PASS = 8192
"""Rows that a silent loop takes at a time, the fastest of 64 ... 65536 here."""
MADE = 1 << 18
WORKER_MB, DRIVER_MB = 256, 64


def make_softmax() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(INPUTS, CLASSES)


def made(rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield `rows` rows in pieces: float32 features, int64 classes."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, MADE):
        count = min(MADE, rows - start)
        yield rng.standard_normal((count, INPUTS), dtype=np.float32), rng.integers(0, CLASSES, count)


def _silent(path: str, half: int, barrier, results) -> None:
    torch.set_num_threads(1)
    barrier.wait(60)
    started = time.perf_counter()
    module, loss, total = make_softmax().eval(), nn.CrossEntropyLoss(reduction="sum"), 0.0
    source = open_dataset(path)
    order = epoch_order(source.blocks(), seed=0, epoch=0, shuffle=False)
    middle = len(order) // 2
    mine = order[:middle] if half == 0 else order[middle:]
    span, sizes = (mine[0].start, mine[-1].stop), [window.rows for window in mine]
    with torch.no_grad(), read_batches(source, order, *span, sizes, seed=0, epoch=0, shuffle=False) as blocks:
        for block in blocks:
            features, labels = torch.from_numpy(block.features), torch.from_numpy(block.labels)
            for start in range(0, len(features), PASS):
                total += float(loss(module(features[start : start + PASS]), labels[start : start + PASS]))
    results.put((time.perf_counter() - started, total))


def silent_loops(path: str, rows: int) -> tuple[float, float]:
    """Return rows/s of two plain loops side by side, until both are done, and the mean loss."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    loops = [context.Process(target=_silent, args=(path, half, barrier, results)) for half in range(2)]
    for loop in loops:
        loop.start()
    found = [results.get(timeout=600) for _ in loops]
    for loop in loops:
        loop.join(60)
    return rows / max(seconds for seconds, _ in found), sum(total for _, total in found) / rows


class Peaks:
    """Peak resident memory of processes, and by how much it grew since the start."""

    def __init__(self, pids: list[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self._before = [process.memory_info().rss for process in self._processes]
        for process in self._processes:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak is from now on

    def grown(self) -> float:
        """Return the largest growth in MB."""
        peaks = [_peak(process.pid) for process in self._processes]
        return max(peak - before for peak, before in zip(peaks, self._before, strict=True)) / 1e6


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--data", help="where the dataset lies, or is made and kept; a temporary directory without")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = args.data or str(Path(folder) / "rows.zarr")
        if not Path(path).exists():
            sb.data.export(made(args.rows), path, batch_size=64, progress=False)
        measure(path, open_dataset(path).rows, args.runs)


def measure(path: str, rows: int, runs: int) -> None:
    from distributed import Client, LocalCluster

    network = sb.MultiLayerNetwork(make_softmax, nn.CrossEntropyLoss())
    scores: dict[str, float] = {}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        sb.Trainer(network, backend=client) as trainer,
    ):

        def ours() -> float:
            started = time.perf_counter()
            scores["ours"] = trainer.calculate_score(path)
            return rows / (time.perf_counter() - started)

        def peer() -> float:
            speed, scores["peer"] = silent_loops(path, rows)
            return speed

        trainer.calculate_score(make_small())  # torch is imported, the trainer's executor open
        workers = Peaks([int(pid) for pid in client.run(lambda: __import__("os").getpid()).values()])
        driver = Peaks([psutil.Process().pid])
        figures = paired(runs, ours, peer)
        grown = workers.grown(), driver.grown()
    assert abs(scores["ours"] / scores["peer"] - 1) < 1e-5, scores
    print_ratio(f"scoring {rows:,} rows, Dask, batch 64: silent loops", *figures, "rows/s", ">= 0.90")
    for what, growth, bound in zip(("a worker", "the driver"), grown, (WORKER_MB, DRIVER_MB), strict=True):
        print(f"peak memory, growth of {what:<35} {growth:>9,.0f} {bound:>9,} MB {'':<22} <= {bound}", flush=True)


def make_small() -> tuple[np.ndarray, np.ndarray]:
    return next(made(1000))


if __name__ == "__main__":
    main()
