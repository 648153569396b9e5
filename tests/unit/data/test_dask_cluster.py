"""Bags on a real Dask cluster: exported by the workers, arranged in their memory."""

from __future__ import annotations

import time

import dask.bag as db
import numpy as np
import pytest

from strombus.data import DataSet, export, open_cell, open_dataset, open_source, validate
from strombus.executors import resolve
from strombus.exporting import readable_source

pytestmark = pytest.mark.dask


def bag():
    sizes = [3, 1, 5, 0, 100, 7, 4, 1, 79]
    starts = np.cumsum([0, *sizes])[:-1]
    ids = [np.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    return db.from_sequence([DataSet(np.stack([i, i], axis=1), i) for i in ids], npartitions=4)


def known_keys(client):
    return set(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks)))


def ids_of(source):
    return np.concatenate([source.read(block)["labels"] for block in source.blocks()]).tolist()


def test_a_bag_is_exported_validated_and_read(dask_client, tmp_path):
    manifest = export(bag(), tmp_path / "d.zarr", batch_size=16, backend=dask_client, progress=False)
    assert manifest.examples == 200
    assert ids_of(open_dataset(tmp_path / "d.zarr")) == list(range(200))
    assert validate(tmp_path / "d.zarr", backend=dask_client).ok
    with resolve(dask_client) as executor, readable_source(bag(), executor, directory=tmp_path) as source:
        assert ids_of(source) == list(range(200))
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.zarr"]


def test_cells_lie_on_the_cluster_until_released(dask_client):
    with resolve(dask_client) as executor:
        source = open_source(bag())
        cells = source.arrange(executor, [50, 120, 30])
        found = [open_cell(cell) for cell in dask_client.gather([cell.handle for cell in cells])]
        assert [(number, rows.examples) for number, rows in found] == [(0, 50), (1, 120), (2, 30)]
        assert [int(i) for _, rows in found for i in rows.labels] == list(range(200))
        keys = {cell.handle.key for cell in cells}
        assert keys <= known_keys(dask_client)
        source.release()
        deadline = time.monotonic() + 10
        while keys & known_keys(dask_client) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not keys & known_keys(dask_client)
