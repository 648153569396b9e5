"""Measure reading and converting DL4J's files against NumPy and against writing the same arrays with Zarr alone.

Run it with ``python tests/benchmarks/dl4j_data.py [megabytes] [runs]``. Each peer works in the same run, in turn.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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


def rate(megabytes: float, work: Callable[[], object], target: Path | None = None) -> Callable[[], float]:
    """Return a function that works once and returns MB/s; what is at `target` is removed before, off the clock."""

    def run() -> float:
        if target is not None:
            shutil.rmtree(target, ignore_errors=True)
        started = time.perf_counter()
        work()
        return megabytes / (time.perf_counter() - started)

    return run


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
            store.create_array(store.join(target, part.name, name), rows, min(chunks[name], len(rows)))
        start += part.examples


def main(megabytes: int = 256, runs: int = 5) -> None:
    with tempfile.TemporaryDirectory() as name, LocalExecutor(1) as one, LocalExecutor(2) as two:
        folder = Path(name)
        (folder / "in").mkdir()
        features, labels = build(folder / "in", megabytes)
        size = (features.nbytes + labels.nbytes) / 1e6
        files, raw = (sorted((folder / "in").glob(pattern)) for pattern in ("*.bin", "*.raw"))

        ours, peer, ratios = paired(runs, rate(size, lambda: parse(files)), rate(size, lambda: swap(raw)))
        print_ratio("DataSet files of 1.6 MB: numpy.fromfile and byteswap", ours, peer, ratios, "MB/s", ">= 0.8")

        def convert(executor: LocalExecutor, target: str) -> None:
            import_dl4j(files, folder / target, executor=executor, progress=False)

        convert(two, "two")  # starts its processes
        alone = rate(size, lambda: convert(one, "one"), folder / "one")
        alone()
        manifest = read_manifest(folder / "one")
        chunks = {n: zarr.open_array(folder / "one" / manifest.parts[0].name / n).chunks[0] for n in manifest.columns}
        arrays = {"features": features, "labels": labels}
        direct = rate(
            size, lambda: write_directly(arrays, manifest.parts, chunks, str(folder / "direct")), folder / "direct"
        )
        ours, peer, ratios = paired(runs, alone, direct)
        print_ratio("import-dl4j, one process: the arrays to Zarr directly", ours, peer, ratios, "MB/s", ">= 0.8")
        ours, peer, ratios = paired(runs, rate(size, lambda: convert(two, "two"), folder / "two"), alone)
        print_ratio("import-dl4j, two processes: one process", ours, peer, ratios, "MB/s", ">= 1.7")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
