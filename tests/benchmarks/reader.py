"""Measure the reader against decoding the same chunks with the codec alone, and against one Zarr read a minibatch.

Run it with ``python tests/benchmarks/reader.py [megabytes]``. The peers take turns; what is printed are medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import zarr
from numcodecs import Zstd

from strombus.data.manifest import write_manifest
from strombus.data.order import epoch_order
from strombus.data.reader import read_batches
from strombus.data.writer import manifest_of, write_parts
from strombus.data.zarr_source import ZarrSource, open_zarr
from strombus.types import DataSet

BATCH = 64


def build(path: str, megabytes: int) -> ZarrSource:
    """Write images that compress to about half, as real ones do."""
    rng = np.random.default_rng(0)
    rows = megabytes * (1 << 20) // 784
    images = (rng.integers(0, 16, (rows, 784)) * 15 * (rng.random((rows, 784)) < 0.5)).astype(np.uint8)
    labels = rng.integers(0, 10, rows)
    write_manifest(path, manifest_of([write_parts([DataSet(images, labels)], path, "bench", batch_size=BATCH)]))
    return open_zarr([path])


def through_reader(source: ZarrSource, shuffle: bool) -> Callable[[], None]:
    def run() -> None:
        fresh = ZarrSource(source.parts, source.layout)
        order = epoch_order(fresh.blocks(), seed=0, epoch=0, shuffle=shuffle)
        full, rest = divmod(fresh.rows, BATCH)
        sizes = [BATCH] * full + [rest] * (rest > 0)
        with read_batches(fresh, order, 0, fresh.rows, sizes, seed=0, epoch=0, shuffle=shuffle) as batches:
            assert sum(batch.examples for batch in batches) == fresh.rows

    return run


def through_codec(source: ZarrSource, folder: str) -> Callable[[], None]:
    """Read the same chunks from one file and decode them into one array a column and part, on one thread."""
    codec, arrays = Zstd(level=1, checksum=True), []
    with open(f"{folder}/chunks", "wb") as file:
        for part in source.parts:
            for name in source.columns:
                array = zarr.open_array(f"{part.uri}/{name}", mode="r")
                values, step = array[...], array.chunks[0]
                starts = range(0, len(values), step)
                lengths = [file.write(codec.encode(values[start : start + step])) for start in starts]
                arrays.append((values.shape, values.dtype, step, lengths))

    def run() -> None:
        with open(f"{folder}/chunks", "rb", buffering=0) as file:
            for shape, dtype, step, lengths in arrays:
                out = np.empty(shape, dtype)
                for i, length in enumerate(lengths):
                    codec.decode(file.read(length), out[i * step : (i + 1) * step])

    return run


def one_read_a_minibatch(source: ZarrSource) -> Callable[[], None]:
    def run() -> None:
        for part in source.parts[:1]:
            arrays = [zarr.open_array(f"{part.uri}/{name}", mode="r") for name in source.columns]
            for start in range(0, part.rows // 4, BATCH):
                for array in arrays:
                    array[start : start + BATCH]

    return run


def seconds(peers: dict[str, Callable[[], None]], repeats: int = 5) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(repeats):
        for name, peer in peers.items():
            started = time.perf_counter()
            peer()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def main(megabytes: int = 64) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = build(f"{folder}/data.zarr", megabytes)
        rows = {"naive": source.parts[0].rows // 4}
        medians = seconds(
            {
                "codec": through_codec(source, folder),
                "shuffled": through_reader(source, True),
                "in order": through_reader(source, False),
                "naive": one_read_a_minibatch(source),
            }
        )
        speed = {name: rows.get(name, source.rows) / taken for name, taken in medians.items()}
        print(
            f"{source.rows} rows of 784 bytes, {len(source.parts)} parts, chunks of {source.parts[0].chunk_rows} rows"
        )
        for name in ("shuffled", "in order"):
            print(
                f"reader, {name}: {speed[name] * 784 / 1e6:.0f} MB/s, {speed[name] / speed['codec']:.2f}x of the codec "
                f"alone, {speed[name] / speed['naive']:.1f}x of one Zarr read a minibatch"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
