"""Measure reading and converting DL4J's files against NumPy and against writing the same arrays with Zarr alone.

Run it with ``python tests/benchmarks/dl4j_data.py [megabytes] [runs]``, on Linux. Each peer works in
the same run, in turn.

One process encodes on several cores, here as with Zarr alone, so that on two cores a second process has little left to
do. What processes add is therefore measured against one that may use one core, and two that may use one each.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import zarr
from common import paired, print_ratio

from strombus.data import Part, import_dl4j, read_manifest, store
from strombus.executors.local import LocalExecutor
from strombus.interchange.dl4j.datasets import read_dataset, write_dataset
from strombus.types import DataSet

ROWS = 512
"""Of a file: 1.6 MB."""


def build(folder: Path, megabytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Write files of images that compress to about half, as real ones do; return all rows."""
    rng = np.random.default_rng(0)
    rows = megabytes * (1 << 20) // 3176 // ROWS * ROWS
    images = rng.integers(0, 16, (rows, 784), dtype=np.uint8) * 15 * (rng.random((rows, 784), np.float32) < 0.5)
    features, labels = images.astype(np.float32) / 255, np.eye(10, dtype=np.float32)[rng.integers(0, 10, rows)]
    for start in range(0, rows, ROWS):
        with open(folder / f"dataset_0_{start // ROWS}.bin", "wb") as file:
            write_dataset(file, DataSet(features[start : start + ROWS], labels[start : start + ROWS]))
        with open(folder / f"{start // ROWS}.raw", "wb") as file:
            for array in (features, labels):
                file.write(array[start : start + ROWS].astype(">f4").tobytes())
    return features, labels


def pin(_shared: object, cores: set[int]) -> None:
    """Allow this process, all its threads, these cores alone; also a task."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)


def cpu_seconds(_shared: object, _part: int) -> float:
    """Return what this process has computed so far; a task."""
    return time.process_time()


class Clock:
    """MB/s of a piece of work, and the CPU time that it took."""

    def __init__(self, megabytes: float) -> None:
        self.megabytes = megabytes
        self.spent: dict[str, list[tuple[float, float]]] = {}

    def rate(
        self,
        name: str,
        work: Callable[[], object],
        target: Path | None = None,
        cores: Iterable[int] | None = None,
        workers: LocalExecutor | None = None,
    ) -> Callable[[], float]:
        """Return a function that works once, on some `cores`, and returns MB/s.

        What is at `target` is removed before, off the clock. CPU time is that of this process and of the busiest of
        the `workers`, which have to wait for one another.
        """

        def run() -> float:
            if target is not None:
                shutil.rmtree(target, ignore_errors=True)
            allowed = os.sched_getaffinity(0)
            pin(None, set(cores or allowed))
            before = self._cpu(workers)
            started = time.perf_counter()
            work()
            seconds = time.perf_counter() - started
            mine, *theirs = (after - was for after, was in zip(self._cpu(workers), before, strict=True))
            pin(None, allowed)
            self.spent.setdefault(name, []).append((seconds, mine + max(theirs, default=0.0)))
            return self.megabytes / seconds

        return run

    def _cpu(self, workers: LocalExecutor | None) -> list[float]:
        theirs = [] if workers is None else workers.map(cpu_seconds, range(workers.capacity().slots or 0))
        return [time.process_time(), *theirs]

    def print_cpu(self, ours: str, peer: str) -> None:
        """Print the ratio by CPU time, which other programs hardly change, and how many cores were busy."""
        mine, theirs = self.spent.pop(ours), self.spent.pop(peer)
        ratios = [b[1] / a[1] for a, b in zip(mine, theirs, strict=True)]
        busy = [statistics.median(used / seconds for seconds, used in one) for one in (mine, theirs)]
        middle, spread = statistics.median(ratios), f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(
            f"  by CPU time {middle:.2f}x ({spread}); cores busy: {ours} {busy[0]:.2f}, {peer} {busy[1]:.2f}",
            flush=True,
        )


def parse(files: list[Path]) -> None:
    for path in files:
        with open(path, "rb") as file:
            read_dataset(file, str(path))


def swap(files: list[Path]) -> None:
    for path in files:
        np.fromfile(path, "<f4").byteswap(inplace=True)


def write_directly(arrays: dict[str, np.ndarray], parts: Sequence[Part], chunks: dict[str, int], target: str) -> None:
    """Write arrays in memory to such parts and chunks as the import makes."""
    start = 0
    for part in parts:
        for name, array in arrays.items():
            rows = array[start : start + part.examples]
            chunk = min(chunks[name], len(rows))
            uri, shard = store.join(target, part.name, name), -(-len(rows) // chunk) * chunk
            store.create_empty(uri, rows.shape, rows.dtype, chunk, shard)[...] = rows
        start += part.examples


def main(megabytes: int = 256, runs: int = 5) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    with tempfile.TemporaryDirectory() as name, LocalExecutor(1) as one, LocalExecutor(2) as two:
        folder = Path(name)
        (folder / "in").mkdir()
        features, labels = build(folder / "in", megabytes)
        clock = Clock((features.nbytes + labels.nbytes) / 1e6)
        files, raw = (sorted((folder / "in").glob(pattern)) for pattern in ("*.bin", "*.raw"))

        found = paired(runs, clock.rate("parse", lambda: parse(files)), clock.rate("swap", lambda: swap(raw)))
        print_ratio("DataSet files of 1.6 MB: numpy.fromfile and byteswap", *found, "MB/s", ">= 0.8")
        clock.print_cpu("parse", "swap")

        def convert(executor: LocalExecutor, target: str) -> None:
            import_dl4j(files, folder / target, executor=executor, progress=False)

        list(two.map(pin, [{core} for core in cores]))  # starts its processes
        convert(two, "two")
        convert(one, "one")
        manifest = read_manifest(folder / "one")
        chunks = {n: zarr.open_array(folder / "one" / manifest.parts[0].name / n).chunks[0] for n in manifest.columns}
        arrays = {"features": features, "labels": labels}

        def direct() -> None:
            write_directly(arrays, manifest.parts, chunks, str(folder / "direct"))

        for used in (cores, cores[:1]):
            ours = clock.rate("import", lambda: convert(one, "one"), folder / "one", used)
            found = paired(runs, ours, clock.rate("Zarr", direct, folder / "direct", used))
            where = f"{len(used)} core{'s' if len(used) > 1 else ''}"
            print_ratio(f"import-dl4j, one process, {where}: Zarr directly", *found, "MB/s", ">= 0.8")
            clock.print_cpu("import", "Zarr")
        ours = clock.rate("two", lambda: convert(two, "two"), folder / "two", workers=two)
        found = paired(runs, ours, clock.rate("one", lambda: convert(one, "one"), folder / "one", cores[:1]))
        print_ratio("import-dl4j, two processes: one process, one core each", *found, "MB/s", ">= 1.7")
        clock.print_cpu("two", "one")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
