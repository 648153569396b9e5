"""Export loses nothing, leaves nothing behind when it fails, and validation finds what is broken."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import dask.array as da
import dask.bag as db
import numpy as np
import pytest
import zarr

from strombus.data import (
    DataSet,
    MultiDataSet,
    epoch_order,
    export,
    open_dataset,
    read_batches,
    read_manifest,
    validate,
)
from strombus.errors import ConfigurationError, DataError, ExecutorError, TaskError, UnfinishedExportError
from strombus.executors.local import LocalExecutor
from strombus.exporting import readable_source, temporary_export


def rows(start, count):
    ids = np.arange(start, start + count)
    return DataSet(np.stack([ids, ids], axis=1).astype(np.float32), ids)


def objects(size, total=200):
    return [rows(start, min(size, total - start)) for start in range(0, total, size)]


def read_ids(source, batch=7, shuffle=False):
    order = epoch_order(source.blocks(), seed=0, epoch=0, shuffle=shuffle)
    full, rest = divmod(source.rows, batch)
    sizes = [batch] * full + [rest] * bool(rest)
    with read_batches(source, order, 0, source.rows, sizes, seed=0, epoch=0, shuffle=shuffle) as batches:
        found = [(int(i), x) for b in batches for i, x in zip(b.labels, b.features, strict=True)]
    assert all((x == i).all() for i, x in found)
    return [i for i, _ in found]


@pytest.fixture(scope="module")
def local():
    with LocalExecutor(workers=1) as executor:
        yield executor


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("strombus.data.writer.CHUNK_BYTES", 8)
    monkeypatch.setattr("strombus.data.writer.PART_BYTES", 8 * 64)


def names(path):
    return sorted(entry.name for entry in Path(path).iterdir()) if Path(path).exists() else []


@pytest.mark.parametrize(("size", "batch"), list(itertools.product([1, 5, 32, 100], [1, 10, 16, 32])))
@pytest.mark.parametrize("form", ["list", "bag"])
def test_every_row_exactly_once(tmp_path, local, small_parts, size, batch, form):
    made = objects(size)
    data = made if form == "list" else db.from_sequence(made, npartitions=min(2, len(made)))
    manifest = export(data, tmp_path / "d.zarr", batch_size=batch, executor=local, progress=False)
    source = open_dataset(tmp_path / "d.zarr")
    assert manifest.examples == source.rows == 200
    assert read_ids(source) == list(range(200))
    assert sorted(read_ids(source, shuffle=True)) == list(range(200))
    assert all(part.examples % batch == 0 for part in manifest.parts[:-1]) or form == "bag"
    assert names(tmp_path / "d.zarr") == sorted([*(part.name for part in manifest.parts), "zarr.json"])


def test_odd_objects_masks_and_empty_partitions(tmp_path, local):
    ids = np.arange(6, dtype=np.float32).reshape(3, 2)
    masked = MultiDataSet([ids], [ids], [np.zeros((3, 2), np.uint8)])
    bag = db.from_sequence([MultiDataSet([ids[:0]], [ids[:0]]), masked, MultiDataSet([ids], [ids])], npartitions=3)
    manifest = export(bag, tmp_path / "d.zarr", executor=local, progress=False)
    assert [part.examples for part in manifest.parts] == [3, 3]
    source = open_dataset(tmp_path / "d.zarr")
    found = np.concatenate([source.read(block)["features_mask_0"] for block in source.blocks()])
    assert found.tolist() == [[0, 0]] * 3 + [[1, 1]] * 3


def test_dask_arrays_and_datasets_can_be_exported(tmp_path, local):
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20)
    x[:] = y[:, None]
    export((da.from_array(x, chunks=(6, 1)), da.from_array(y, chunks=20)), tmp_path / "a", executor=local)
    export(tmp_path / "a", tmp_path / "b", batch_size=8, progress=False)
    assert read_ids(open_dataset(tmp_path / "b")) == list(range(20))


def test_a_dataset_is_not_replaced_by_accident_and_stays_until_the_new_one_is_there(tmp_path):
    path = tmp_path / "d.zarr"
    export(rows(0, 10), path, progress=False)
    before = names(path)
    with pytest.raises(DataError, match="overwrite=True"):
        export(rows(0, 5), path, progress=False)

    def breaks():
        yield rows(0, 5)
        raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError, match="the database"):
        export(breaks(), path, overwrite=True, progress=False)
    assert names(path) == before
    assert read_ids(open_dataset(path)) == list(range(10))
    export(rows(0, 5), path, overwrite=True, progress=False)
    assert read_ids(open_dataset(path)) == list(range(5))
    assert len(names(path)) == 2


def test_a_failed_export_leaves_no_parts(tmp_path, local, small_parts):
    def breaks():
        yield from objects(50)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        export(breaks(), tmp_path / "a.zarr", progress=False)
    bad = DataSet(np.zeros((3, 9)), np.zeros(3))
    bag = db.from_sequence([*objects(50), bad], npartitions=1)
    with pytest.raises(TaskError, match="must agree"):
        export(bag, tmp_path / "b.zarr", executor=local, progress=False)
    with pytest.raises(DataError, match=r"part-00000-.* is DataSet.*part-00000-.* is DataSet"):
        export(db.from_sequence([rows(0, 4), bad], npartitions=2), tmp_path / "c.zarr", executor=local, progress=False)
    assert [names(tmp_path / name) for name in ("a.zarr", "b.zarr", "c.zarr")] == [[], [], []]


def test_leftovers_of_a_killed_export_are_named_and_cleared(tmp_path):
    path = tmp_path / "d.zarr"
    (path / "part-00000-dead-beef").mkdir(parents=True)
    with pytest.raises(UnfinishedExportError, match="did not finish"):
        export(rows(0, 5), path, progress=False)
    manifest = export(rows(0, 5), path, overwrite=True, progress=False)
    assert names(path) == [manifest.parts[0].name, "zarr.json"]


def test_nothing_to_export_and_bad_options(tmp_path):
    with pytest.raises(DataError, match="no examples"):
        export([], tmp_path / "d.zarr", progress=False)
    with pytest.raises(ConfigurationError, match="batch_size"):
        export(rows(0, 5), tmp_path / "d.zarr", batch_size=0)


def test_a_temporary_export_is_gone_afterwards(tmp_path, local):
    with temporary_export(objects(32), local, directory=tmp_path) as source:
        assert read_ids(source) == list(range(200))
        assert names(tmp_path)
    assert names(tmp_path) == []
    with pytest.raises(KeyError), temporary_export(objects(32), local, directory=tmp_path):
        raise KeyError
    assert names(tmp_path) == []
    with pytest.raises(DataError), temporary_export([], local, directory=tmp_path):
        pass
    assert names(tmp_path) == []


class Elsewhere(LocalExecutor):
    """An executor whose tasks run after the directory was emptied, as if on a machine that has another one."""

    def __init__(self, folder):
        super().__init__(workers=1)
        self.folder = folder

    def map(self, task, parts, shared=None):
        for entry in self.folder.iterdir():
            shutil.rmtree(entry)
        return super().map(task, parts, shared)


def test_a_directory_that_workers_do_not_share_is_refused_before_anything_is_exported(tmp_path):
    with (
        Elsewhere(tmp_path) as executor,
        pytest.raises(ExecutorError, match=r"not shared by the worker on .*Direct"),
        temporary_export(objects(32), executor, directory=tmp_path),
    ):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", [True, False])
def test_anything_becomes_a_readable_source(tmp_path, local, write):
    forms = [
        rows(0, 200),
        objects(32),
        iter(objects(7)),
        db.from_sequence([rows(0, 150), rows(0, 0), rows(150, 50)], npartitions=3),
    ]
    for data in forms:
        with readable_source(data, local, export=write, directory=tmp_path) as source:
            assert read_ids(source) == list(range(200))
    assert names(tmp_path) == []


# -- validation ------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path, small_parts):
    """Five parts of 64, 64, 64, 64 and 44 rows."""
    export(objects(50, 300), tmp_path / "d.zarr", batch_size=4, progress=False)
    return tmp_path / "d.zarr"


def check(path, local, **options):
    return validate(path, backend=local, **options)


def test_a_good_dataset_is_valid(dataset, local):
    report = check(dataset, local, features_shape=(-1, 2), labels_shape=(0,))
    assert report.ok
    assert (report.total, report.valid, report.examples) == (5, 5, 300)
    assert str(report) == "5 of 5 parts valid, 300 examples"


def test_each_kind_of_damage_is_found_and_named(dataset, local):
    parts = [dataset / part.name for part in read_manifest(dataset).parts]
    (parts[0] / "features" / "c" / "0" / "0").write_bytes(b"no shard at all")
    (parts[1] / "labels" / "c" / "0").unlink()
    shutil.rmtree(parts[2])
    record = json.loads((parts[3] / "features" / "zarr.json").read_text())
    record["shape"] = [2**50, 2]
    (parts[3] / "features" / "zarr.json").write_text(json.dumps(record))
    array = zarr.open_array(parts[4] / "features")
    array[3, 1] = np.nan
    report = check(dataset, local)
    assert (report.total, report.valid, report.examples) == (5, 0, 0)
    assert (report.corrupt, report.missing, report.mismatched, report.non_finite) == (1, 2, 1, 1)
    lines = str(report).splitlines()
    assert lines[0] == "0 of 5 parts valid, 0 examples; 2 missing, 1 corrupt, 1 mismatched, 1 non-finite"
    assert "labels has lost c/0" in lines[2]
    assert "1 NaN or infinite" in lines[5]


def test_bits_that_flipped_are_found(dataset, local):
    shard = dataset / read_manifest(dataset).parts[0].name / "features" / "c" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[20] ^= 4
    shard.write_bytes(bytes(content))
    assert check(dataset, local).corrupt == 1


@pytest.mark.parametrize(("shape", "bad"), [((-1, 2), 0), ((64, 2), 1), ((-1, 3), 5), ((-1, 2, 1), 5)])
def test_shape_templates(dataset, local, shape, bad):
    assert check(dataset, local, features_shape=shape).mismatched == bad


def test_a_template_for_what_is_not_there(dataset, local, tmp_path):
    export(DataSet(np.zeros((4, 2))), tmp_path / "unlabelled.zarr", progress=False)
    assert check(tmp_path / "unlabelled.zarr", local, labels_shape=(-1,)).missing == 1


def test_quarantine_makes_the_rest_usable(dataset, local):
    parts = read_manifest(dataset).parts
    (dataset / parts[1].name / "features" / "c" / "0" / "0").write_bytes(b"")
    shutil.rmtree(dataset / parts[3].name)
    report = check(dataset, local, quarantine=True)
    assert report.quarantined == (parts[1].name, parts[3].name)
    assert names(dataset / "quarantine") == [parts[1].name]
    kept = [i for i in range(300) if not (64 <= i < 128 or 192 <= i < 256)]
    assert read_ids(open_dataset(dataset)) == kept
    assert check(dataset, local).ok
