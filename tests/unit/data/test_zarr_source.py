"""Datasets in Zarr: written, opened, listed, damaged, plain."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import zarr

from strombus.data import ZarrSource, epoch_order, open_dataset, read_batches, read_manifest
from strombus.data.manifest import Manifest, Part, write_manifest
from strombus.data.rows import Column
from strombus.data.writer import manifest_of, write_parts
from strombus.errors import DataError, MissingDataError, UnfinishedExportError
from strombus.types import Block, DataSet, MultiDataSet


def rows(start, count, width=3):
    ids = np.arange(start, start + count)
    return DataSet(np.stack([ids] * width, axis=1).astype(np.float32), ids)


def write(path, objects, batch_size=4):
    written = write_parts(objects, str(path), "test", batch_size=batch_size)
    write_manifest(path, manifest_of([written]))
    return read_manifest(path)


def read_all(source):
    blocks = [source.read(block) for block in source.blocks()]
    return {name: np.concatenate([columns[name] for columns in blocks]) for name in source.columns}


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 16 rows, chunks of 4, so that small data has many of them."""
    monkeypatch.setattr("strombus.data.writer.CHUNK_BYTES", 48)
    monkeypatch.setattr("strombus.data.writer.PART_BYTES", 48 * 4)


def test_a_dataset_is_what_any_zarr_tool_expects(tmp_path, small_parts):
    manifest = write(tmp_path / "d.zarr", [rows(0, 21), rows(21, 19)])
    assert [part.examples for part in manifest.parts] == [16, 16, 8]
    root = zarr.open_group(tmp_path / "d.zarr", mode="r")
    record = root.attrs["strombus"]
    assert (record["version"], record["kind"], record["examples"]) == (1, "DataSet", 40)
    found = np.concatenate([root[part["name"]]["features"][:] for part in record["parts"]])
    assert (found[:, 0] == np.arange(40)).all()
    array = root[record["parts"][0]["name"]]["features"]
    assert (array.metadata.zarr_format, array.chunks, array.shards) == (3, (4, 3), (16, 3))


@pytest.mark.parametrize("place", ["local", "file://", "memory://"])
def test_reads_back_what_was_written_wherever_it_lies(tmp_path, small_parts, place):
    path = {"local": f"{tmp_path}/d.zarr", "file://": f"file://{tmp_path}/d.zarr", "memory://": "memory://test/d.zarr"}
    write(path[place], [rows(0, 50)])
    source = open_dataset(path[place])
    assert (source.kind, source.rows, source.part_rows) == ("DataSet", 50, (16, 16, 16, 2))
    assert source.columns == {"features": Column("float32", (3,)), "labels": Column("int64", ())}
    assert (read_all(source)["labels"] == np.arange(50)).all()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", ">i4", "int64", "float16", "float32", "float64"])
def test_dtypes_and_bits_are_kept(tmp_path, dtype):
    values = np.array([[0.0, -0.0, 1.0], [0, 0, 0]]).astype(dtype)
    write(tmp_path / "d.zarr", [DataSet(values)])
    found = read_all(open_dataset(tmp_path / "d.zarr"))["features"]
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    assert found.tobytes() == values.astype(found.dtype).tobytes()


def test_multi_data_sets_and_masks_in_some_objects_only(tmp_path, small_parts):
    def one(start, mask):
        ids = np.arange(start, start + 8, dtype=np.float32)[:, None] * np.ones(3, np.float32)
        return MultiDataSet([ids, ids + 1], [ids], [None, mask], None)

    mask = np.zeros((8, 3), np.uint8)
    write(tmp_path / "d.zarr", [one(0, None), one(8, mask), *(one(8 * i, None) for i in range(2, 6))])
    source = open_dataset(tmp_path / "d.zarr")
    assert source.kind == "MultiDataSet"
    assert "features_mask_1" not in source.parts[1].columns
    found = read_all(source)
    assert (found["features_mask_1"][:, 0] == [1] * 8 + [0] * 8 + [1] * 32).all()
    assert (found["features_0"][:, 0] == np.arange(48)).all()


def test_blocks_take_whole_chunks_and_never_cross_parts(tmp_path, small_parts, monkeypatch):
    monkeypatch.setattr("strombus.data.zarr_source.BLOCK_BYTES", 160)
    write(tmp_path / "d.zarr", [rows(0, 42)])
    source = open_dataset(tmp_path / "d.zarr")
    assert source.blocks() == (
        *(Block(p, i, i + 8) for p in (0, 1) for i in (0, 8)),
        Block(2, 0, 10),
    )
    assert (read_all(source)["labels"] == np.arange(42)).all()


def test_a_source_is_small_and_pickles_without_what_it_opened(tmp_path):
    write(tmp_path / "d.zarr", [rows(0, 5000)])
    source = open_dataset(tmp_path / "d.zarr")
    before = len(pickle.dumps(source))
    read_all(source)
    assert len(pickle.dumps(source)) == before < 2000
    assert (read_all(pickle.loads(pickle.dumps(source)))["labels"] == np.arange(5000)).all()


def test_lists_of_datasets_parts_and_plain_groups_are_one(tmp_path, small_parts):
    first = write(tmp_path / "a.zarr", [rows(0, 20)])
    write(tmp_path / "b.zarr", [rows(20, 4)])
    plain = zarr.create_group(tmp_path / "plain.zarr")
    plain.create_array("features", data=rows(24, 6).features, chunks=(2, 3))
    plain.create_array("labels", data=rows(24, 6).labels)
    plain.create_array("notes", data=np.zeros(2))
    names = [tmp_path / "a.zarr" / part.name for part in first.parts]
    source = open_dataset([*names, tmp_path / "b.zarr", str(tmp_path / "plain.zarr")])
    assert source.part_rows == (16, 4, 4, 6)
    assert (read_all(source)["labels"] == np.arange(30)).all()


def test_sources_that_do_not_go_together_are_named(tmp_path):
    write(tmp_path / "a.zarr", [rows(0, 4)])
    write(tmp_path / "b.zarr", [rows(0, 4, width=5)])
    with pytest.raises(DataError, match=r"a\.zarr is DataSet.*float32\[3\].*b\.zarr is DataSet.*float32\[5\]"):
        open_dataset([tmp_path / "a.zarr", tmp_path / "b.zarr"])


def test_a_manifest_without_the_extras_is_enough(tmp_path, small_parts):
    manifest = write(tmp_path / "d.zarr", [rows(0, 20)])
    bare = {
        "version": 1,
        "kind": "DataSet",
        "parts": [{"name": p.name, "examples": p.examples} for p in manifest.parts],
    }
    zarr.open_group(tmp_path / "d.zarr").update_attributes({"strombus": bare})
    source = open_dataset(tmp_path / "d.zarr")
    assert (source.part_rows, len(source.blocks())) == ((16, 4), 2)
    assert (read_all(source)["labels"] == np.arange(20)).all()


def test_nothing_unfinished_and_something_else_are_told_apart(tmp_path):
    with pytest.raises(MissingDataError, match="no data at"):
        open_dataset(tmp_path / "nowhere.zarr")
    write_parts([rows(0, 4)], str(tmp_path / "half.zarr"), "x")
    with pytest.raises(UnfinishedExportError, match="did not finish"):
        open_dataset(tmp_path / "half.zarr")
    write(tmp_path / "d.zarr" / "train", [rows(0, 4)])
    with pytest.raises(DataError, match="it has train"):
        open_dataset(tmp_path / "d.zarr")
    with pytest.raises(MissingDataError):
        open_dataset([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "version 9"),
        ({"examples": 5}, "promises 5 examples"),
        ({"kind": "Table"}, "broken"),
        ({"parts": [{"name": "../../etc", "examples": 4}], "examples": 4}, "broken"),
        ({"parts": [{"name": "a/b", "examples": 4}], "examples": 4}, "broken"),
        ({"parts": [{"name": "part-1", "examples": -4}], "examples": -4}, "broken"),
        ({"parts": [{"name": "p", "examples": 2}, {"name": "p", "examples": 2}], "examples": 4}, "twice"),
        ({"surprise": 1}, "broken"),
    ],
)
def test_a_broken_manifest_is_refused(tmp_path, change, message):
    write(tmp_path / "d.zarr", [rows(0, 4)])
    group = zarr.open_group(tmp_path / "d.zarr")
    group.update_attributes({"strombus": {**group.attrs["strombus"], **change}})
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "d.zarr")


def test_manifest_survives_its_file(tmp_path):
    manifest = Manifest("DataSet", (Part("part-0", 3, ("features",)),), columns={"features": Column("float32", (2,))})
    write_manifest(tmp_path / "m.zarr", manifest)
    assert read_manifest(tmp_path / "m.zarr") == manifest == pickle.loads(pickle.dumps(manifest))


def test_damage_is_an_error_and_never_zeros(tmp_path):
    manifest = write(tmp_path / "d.zarr", [rows(1, 4)])
    part = tmp_path / "d.zarr" / manifest.parts[0].name
    shard = part / "features" / "c" / "0" / "0"
    good = shard.read_bytes()
    shard.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"part-00000.*features cannot be read.*validate"):
        read_all(open_dataset(tmp_path / "d.zarr"))
    shard.unlink()
    with pytest.raises(DataError, match="has lost c/0/0"):
        read_all(open_dataset(tmp_path / "d.zarr"))
    shutil.rmtree(part)
    with pytest.raises(DataError, match="cannot be read"):
        read_all(open_dataset(tmp_path / "d.zarr"))


def test_metadata_that_claims_other_rows_is_refused(tmp_path):
    manifest = write(tmp_path / "d.zarr", [rows(0, 4)])
    file = tmp_path / "d.zarr" / manifest.parts[0].name / "features" / "zarr.json"
    record = json.loads(file.read_text())
    record["shape"][0] = 2**50
    file.write_text(json.dumps(record))
    with pytest.raises(DataError, match="was promised as"):
        read_all(open_dataset(tmp_path / "d.zarr"))


def test_a_window_read_in_rounds_is_decoded_once(tmp_path, small_parts, monkeypatch):
    decoded = []
    decode = ZarrSource._decode
    monkeypatch.setattr(ZarrSource, "_decode", lambda self, *span: decoded.append(span) or decode(self, *span))
    write(tmp_path / "d.zarr", [rows(0, 100)])
    source = open_dataset(tmp_path / "d.zarr")
    order = epoch_order(source.blocks(), seed=0, epoch=0)
    found = []
    for start in range(0, 100, 10):
        with read_batches(source, order, start, start + 10, [5, 5], seed=0, epoch=0) as batches:
            found += [int(i) for batch in batches for i in batch.labels]
    assert sorted(found) == list(range(100))
    assert len(decoded) == len(set(decoded)) == 7 * 2


def test_what_is_kept_in_memory_is_bounded(tmp_path, small_parts, monkeypatch):
    monkeypatch.setattr("strombus.data.kept.CACHE_BYTES", 1000)
    monkeypatch.setattr("strombus.data.zarr_source.OPEN_ARRAYS", 3)
    write(tmp_path / "d.zarr", [rows(0, 500)])
    source = open_dataset(tmp_path / "d.zarr")
    assert (read_all(source)["labels"] == np.arange(500)).all()
    assert 0 < source._decoded.nbytes <= 1000
    assert len(source._open) <= 3
