"""Directories that DL4J exported to are data: every row once, wherever they lie, read where they are used."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pytest
from helpers.dl4j import array_of

from strombus.data import Dl4jSource, epoch_order, open_dataset, open_source, read_batches
from strombus.errors import DataError, EmptyDataError, MissingDataError, StrombusWarning
from strombus.interchange.dl4j.binary import Input
from strombus.interchange.dl4j.datasets import write_dataset
from strombus.types import Block, DataSet, MultiDataSet

GOLDEN = Path(__file__).parents[2] / "golden/dl4j"
EXPORTED = GOLDEN / "exported"
KEPT = [0, 1, 2, 3, 8, 7, 6, 5, 4, 9, 10, 17, 16, 15, 14, 13, *range(18, 24), 29, 28, 27, 26, 25, 24, 30, 31]
"""Which of the 32 examples DL4J wrote, in its order."""


def rows(start, count, width=3, dtype=np.float32):
    ids = np.arange(start, start + count)
    return DataSet(np.stack([ids] * width, axis=1).astype(dtype), ids[:, None].astype(np.float32))


def save(folder, objects, name="dataset_0_{}.bin"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(objects):
        with open(folder / name.format(number), "wb") as file:
            write_dataset(file, one)
    return folder


def read_all(source):
    blocks = [source.read(block) for block in source.blocks()]
    return {name: np.concatenate([columns[name] for columns in blocks]) for name in source.columns}


def batches(source, size=7, shuffle=True):
    order = epoch_order(source.blocks(), seed=0, epoch=0, shuffle=shuffle)
    sizes = [size] * (source.rows // size) + [source.rows % size] * (source.rows % size > 0)
    with read_batches(source, order, 0, source.rows, sizes, seed=0, epoch=0, shuffle=shuffle) as found:
        return list(found)


def places(tmp_path, folder, place):
    if place == "memory://":
        target = f"/{tmp_path.name}/{folder.name}"
        fsspec.filesystem("memory").put(str(folder), target, recursive=True)
        return f"memory:/{target}"
    return f"{place}{folder}"


@pytest.mark.parametrize("place", ["", "file://", "memory://"])
@pytest.mark.parametrize("name", ["data_sets_batch_4", "multi_data_sets_batch_4"])
def test_an_exported_directory_has_what_dl4j_wrote(tmp_path, name, place):
    """DL4J itself turned around the examples of objects that it split, and lost two of them."""
    record = json.loads((EXPORTED / "exported.json").read_text())
    sets = record["source_multi_data_sets" if name.startswith("multi") else "source_data_sets"]
    source = open_dataset(places(tmp_path, EXPORTED / name, place))
    found = read_all(pickle.loads(pickle.dumps(source)))
    assert isinstance(source, Dl4jSource)
    assert (source.kind, source.rows) == ("MultiDataSet" if name.startswith("multi") else "DataSet", 30)
    for column, array in found.items():
        key, _, number = column.partition("_")
        pieces = [array_of(one[key][int(number)] if number else one[key]) for one in sets]
        np.testing.assert_array_equal(array, np.concatenate(pieces)[KEPT])


@pytest.mark.parametrize("place", ["", "memory://"])
def test_every_row_once_in_the_order_of_the_numbers_in_the_names(tmp_path, monkeypatch, place):
    monkeypatch.setattr("strombus.data.dl4j_source.BLOCK_BYTES", 160)  # ten rows
    monkeypatch.setattr("strombus.data.dl4j_files.SMALL", 1000)
    monkeypatch.setattr("strombus.data.kept.CACHE_BYTES", 400)
    sizes = [3, 4, 2, 40, 1, 6, 9, 8, 5, 3, 7, 1]
    starts = np.cumsum([0, *sizes])
    objects = [rows(start, size) for start, size in zip(starts, sizes, strict=False)]
    objects[8] = DataSet(*(np.asfortranarray(array) for array in objects[8].columns().values()))
    save(tmp_path / "d", objects)
    save(tmp_path / "d", [MultiDataSet([], [])], "dataset_1_{}.bin")
    (tmp_path / "d/dataset_1_1.bin").write_bytes(b"\0")
    for name in (".dataset_0_0.bin.crc", "_SUCCESS", "notes.txt"):
        (tmp_path / "d" / name).write_text("nothing")
    source = pickle.loads(pickle.dumps(open_dataset(places(tmp_path, tmp_path / "d", place))))
    assert source.part_rows == (9, 40, 7, 9, 8, 8, 8)
    assert [block.rows for block in source.blocks()] == [9, 10, 10, 10, 10, 7, 9, 8, 8, 8]
    assert read_all(source)["labels"][:, 0].tolist() == list(range(89))
    found = batches(source)
    assert all((batch.features == batch.labels).all() for batch in found)
    order = np.concatenate([batch.labels[:, 0] for batch in found]).tolist()
    assert order != sorted(order)
    assert sorted(order) == list(range(89))
    source.release()
    assert source.read(Block(1, 3, 5))["labels"].tolist() == [[12], [13]]


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_large_file_is_read_some_rows_at_a_time_unless_rows_lie_apart(tmp_path, monkeypatch, order):
    monkeypatch.setattr("strombus.data.dl4j_source.BLOCK_BYTES", 160)
    whole = rows(0, 100)
    save(tmp_path, [DataSet(np.asarray(whole.features, order=order), whole.labels)])
    source, taken, real = open_dataset(tmp_path), [], Input.array

    def counted(self, dtype, count, what, out=None):
        taken.extend([count] if what == "the numbers" else [])
        return real(self, dtype, count, what, out)

    monkeypatch.setattr(Input, "array", counted)
    assert read_all(source)["features"][:, 2].tolist() == list(range(100))
    assert taken == ([30, 10] * 10 if order == "C" else [300, 100])
    monkeypatch.setattr("strombus.data.dl4j_source.LARGEST_BLOCK", 1000)
    if order == "F":
        with pytest.raises(DataError, match="lie apart"):
            open_dataset(tmp_path)


def test_masks_that_some_files_lack_are_ones(tmp_path):
    time = np.arange(12, dtype=np.float32).reshape(2, 1, 6)
    mask = np.zeros((2, 6), np.float32)
    save(tmp_path, [DataSet(time, time), DataSet(time, time, mask, mask), DataSet(time, time, None, mask)])
    found = read_all(open_dataset(tmp_path))
    assert found["features_mask"][:, 0].tolist() == [1, 1, 0, 0, 1, 1]
    assert found["labels_mask"][:, 0].tolist() == [1, 1, 0, 0, 0, 0]


def test_files_may_be_named_one_by_one(tmp_path):
    save(tmp_path, [rows(0, 3), rows(3, 4), rows(7, 2)])
    source = open_source([tmp_path / "dataset_0_2.bin", f"file://{tmp_path}/dataset_0_0.bin"])
    assert read_all(source)["labels"][:, 0].tolist() == [7, 8, 0, 1, 2]
    doubled = open_dataset(tmp_path, transform=lambda batch: DataSet(batch.features * 2, batch.labels))
    assert (batches(doubled)[0].features == batches(doubled)[0].labels * 2).all()


def test_metadata_is_warned_of_once_and_the_arrays_are_complete(tmp_path):
    for number in range(3):
        shutil.copy(GOLDEN / "datasets/with_meta_data.bin", tmp_path / f"{number}.bin")
    with pytest.warns(StrombusWarning, match="3 files have metadata") as caught:
        source = open_dataset(tmp_path)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_all(pickle.loads(pickle.dumps(source)))["features"].shape == (6, 2)


def broken(tmp_path, **files):
    """Save three sets, and give files other contents."""
    save(tmp_path, [rows(0, 3), rows(3, 4), rows(7, 2)])
    for name, content in files.items():
        (tmp_path / f"{name}.bin").write_bytes(content)
    return tmp_path


ONE = (GOLDEN / "datasets/one_example.bin").read_bytes()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"dataset_0_1": ONE[:200]}, r"dataset_0_1\.bin, byte 1\d\d: the shape needs 64 bytes, 22 are left"),
        ({"dataset_0_1": b""}, r"dataset_0_1\.bin, byte 0: the first byte needs 1 bytes"),
        ({"dataset_0_1": ONE}, r"dataset_0_0\.bin is DataSet\(features float32\[3\].*dataset_0_1\.bin is DataSet"),
        ({"mds_0_0": (GOLDEN / "datasets/multi_no_labels.bin").read_bytes()}, r"mds_0_0\.bin is MultiDataSet"),
    ],
    ids=["short", "empty", "shape", "kind"],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, files, reason):
    with pytest.raises(DataError, match=reason):
        open_dataset(broken(tmp_path, **files))


def test_what_is_not_there_or_leads_elsewhere_is_said(tmp_path):
    with pytest.raises(MissingDataError, match=r"no data at .*gone\.bin"):
        open_dataset(tmp_path / "gone.bin")
    with pytest.raises(EmptyDataError, match="no example in 1 file at"):
        open_dataset(save(tmp_path / "none", [MultiDataSet([], [])]))
    save(tmp_path / "linked", [rows(0, 2)])
    os.symlink(tmp_path / "linked/dataset_0_0.bin", tmp_path / "linked/dataset_0_1.bin")
    with pytest.raises(DataError, match="is a symbolic link"):
        open_dataset(tmp_path / "linked")
    save(tmp_path / "pipe", [rows(0, 2)])
    os.mkfifo(tmp_path / "pipe/dataset_0_1.bin")
    with pytest.raises(DataError, match="no regular file"):
        open_dataset(tmp_path / "pipe")
    with pytest.raises(DataError, match="bring them to one form"):
        open_dataset([tmp_path / "linked/dataset_0_0.bin", tmp_path])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file.unlink(), "is gone"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"byte \d+: .* 1[15] are left"),
        (lambda file: save(file.parent, [rows(0, 3), rows(3, 5)]), "has changed since"),
        (lambda file: save(file.parent, [rows(0, 3), rows(3, 4, dtype=np.float64)]), "features float64"),
    ],
    ids=["removed", "cut", "longer", "dtype"],
)
def test_a_file_that_changes_after_opening_is_refused(tmp_path, change, reason):
    source = open_dataset(broken(tmp_path))
    change(tmp_path / "dataset_0_1.bin")
    with pytest.raises(DataError, match=rf"dataset_0_1\.bin.*{reason}"):
        read_all(source)
