"""Whatever users hand over is recognised, and its rows arrive once and in order."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import strombus as sb
from strombus.data import ArraySource, LocalStream, NativeCollection, Source, load_cell, open_cell, open_source, streams
from strombus.data.native import plan_cells
from strombus.data.rows import iterate_rows
from strombus.errors import ConfigurationError, DataError, MissingDataError
from strombus.types import DataSet, MultiDataSet


def rows(start, count):
    ids = np.arange(start, start + count)
    return DataSet(np.stack([ids, ids], axis=1).astype(np.float32), ids)


class InProcess:
    """Opens native partitions of Dask in this process, as the local executor does."""

    def map(self, task, parts, shared=None):
        return (task(shared, part.handle.compute(scheduler="synchronous")) for part in parts)


def labels_of(source):
    if isinstance(source, Source):
        return np.concatenate([source.read(block)["labels"] for block in source.blocks()]).tolist()
    if isinstance(source, NativeCollection):
        opened = InProcess().map(lambda _, value: list(iterate_rows(value)), source.partitions())
        return [int(i) for objects in opened for item in objects for i in item.labels]
    return [int(i) for item in source for i in item.labels]


X, Y = np.arange(40, dtype=np.float32).reshape(20, 2), np.arange(20)


class Examples(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.tensor(X[index]), int(Y[index])


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return ((torch.tensor(x), torch.tensor(y)) for x, y in zip(X, Y, strict=True))


def frame():
    return pd.DataFrame({"features": list(X), "a": X[:, 0], "b": X[:, 1], "label": Y})


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ((X, Y), ArraySource),
        ((torch.tensor(X), torch.tensor(Y)), ArraySource),
        (DataSet(X, Y), ArraySource),
        (frame(), ArraySource),
        ([DataSet(X[:7], Y[:7]), DataSet(X[7:], Y[7:])], LocalStream),
        (((X[i : i + 3], Y[i : i + 3]) for i in range(0, 20, 3)), LocalStream),
        (Examples(), LocalStream),
        (Stream(), LocalStream),
        (torch.utils.data.DataLoader(Examples(), batch_size=6), LocalStream),
        (db.from_sequence([rows(0, 3), rows(3, 9), rows(12, 8)], npartitions=2), NativeCollection),
        (db.from_sequence(list(zip(X, Y, strict=True)), npartitions=3), NativeCollection),
        ((da.from_array(X, chunks=(6, 1)), da.from_array(Y, chunks=9)), NativeCollection),
        ((da.from_array(X, chunks=(6, 1)), Y), NativeCollection),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_every_form_is_recognised_and_complete(data, kind):
    source = open_source(data)
    assert isinstance(source, kind)
    assert labels_of(source) == list(range(20))


def test_features_come_out_as_they_went_in():
    for data in [(X, Y), frame(), Examples(), db.from_sequence(list(zip(X, Y, strict=True)), npartitions=1)]:
        source = open_source(data)
        if isinstance(source, NativeCollection):
            found = load_cell(next(InProcess().map(lambda _, value: value, source.partitions())))
        else:
            found = ArraySource.collect(source).read if not isinstance(source, Source) else source.read
            block = (ArraySource.collect(source) if not isinstance(source, Source) else source).blocks()[0]
            found = DataSet(**found(block))
        assert found.features.dtype == np.float32
        assert (found.features == X).all()


def test_feature_columns_can_be_named():
    source = open_source(frame(), features=["a", "b"])
    assert (source.read(source.blocks()[0])["features"] == X).all()
    with pytest.raises(DataError, match=r"no column pixels, it has features, a, b, label; .*data\.table\("):
        open_source(frame(), features="pixels")


class Items(torch.utils.data.Dataset):
    """Three times the same item."""

    def __init__(self, item):
        self.item = item

    def __len__(self):
        return 3

    def __getitem__(self, number):
        return self.item


WEIGHED = (X[0], 1, 0.5)
NAMED = {"x": X[0], "y": 1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Items(WEIGHED), r"weights of examples are given as DataSet\(features, labels, weights=...\)"),
        (torch.utils.data.TensorDataset(*map(torch.tensor, (X, Y, X[:, 0]))), "weights of examples are given as"),
        (lambda: iter([WEIGHED]), "weights of examples are given as"),
        ([WEIGHED], "weights of examples are given as"),
        (Items(NAMED), r"\(features, labels\), got dict; give strombus.data.examples\(dataset, collate\)"),
        (lambda: iter([NAMED]), "must be a DataSet, .* got dict"),
        (
            [(np.array([["a", "b"]]),)],
            "features must be a regular numeric array, got texts; number them, for an embedd",
        ),
        ([([[1, 2], [3]], Y[:2])], "regular numeric array: .*inhomogeneous.*; pad or cut"),
        ([(np.array([[1, 2], [3]], object), Y[:2])], "objects: lists, as where rows have different lengths; pad"),
        ([(np.array([NAMED, NAMED]), Y[:2])], "features must be a regular numeric array, got objects such as dict"),
    ],
)
def test_what_no_rows_can_be_made_of_says_so(data, message):
    with pytest.raises(DataError, match=message):
        list(open_source(data))


def test_a_single_example_may_have_masks_of_its_steps():
    (found,) = open_source([(np.ones((4, 2)), 1, np.array([1, 1, 0, 0]), [0.5])])
    assert (found.features_mask.shape, found.labels_mask.tolist()) == ((1, 4), [[0.5]])


@pytest.mark.parametrize("option", [5, "log"])
def test_a_transform_that_is_no_function_is_refused_when_it_is_given(option, tmp_path):
    sb.data.export((X, Y), tmp_path / "d.zarr", progress=False)
    for opening in (
        lambda: sb.data.open_dataset(tmp_path / "d.zarr", transform=option),
        lambda: open_source((X, Y), transform=option),
        lambda: sb.data.table(frame(), "a", transform=option),
        lambda: sb.data.mix([(X, Y)], [1], transform=option),
    ):
        with pytest.raises(ConfigurationError, match=f"transform must be a function, got {type(option).__name__}"):
            opening()


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (lambda: (rows(i, 4) for i in range(5)), True),
        ((rows(i, 4) for i in range(5)), True),
        ([rows(i, 4) for i in range(5)], False),
        (Examples(), False),
    ],
)
def test_what_may_have_no_end_is_asked_about_once_while_it_is_kept(data, asked, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(streams, "LONG_ROWS", 9)
    sb.data.export(data, tmp_path / "d.zarr", progress=False)
    found = [one.getMessage() for one in caplog.records if "steps_per_epoch" in one.getMessage()]
    assert [message[:7] for message in found] == ["12 rows"] * asked


def test_what_is_kept_of_an_endless_one_is_not_asked_about(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(streams, "LONG_BYTES", 1)
    head = open_source(rows(i, 4) for i in itertools.count()).head(10)
    assert sb.data.export(head, tmp_path / "d.zarr", progress=False).examples == 10
    assert not caplog.records


def test_several_inputs_make_a_multi_data_set():
    source = open_source(([X, X], [Y]))
    assert source.kind == "MultiDataSet"
    assert set(source.columns) == {"features_0", "features_1", "labels_0"}
    assert open_source(MultiDataSet([X], [Y])).kind == "MultiDataSet"


@pytest.mark.parametrize("data", [3, b"bytes", {"a": 1}, None])
def test_anything_else_is_refused_with_what_is_accepted(data):
    with pytest.raises(DataError, match=r"a path or URI of a dataset.*Spark DataFrame; got"):
        open_source(data)


def test_a_path_that_leads_nowhere(tmp_path):
    for data in (tmp_path / "x.zarr", str(tmp_path / "x.zarr"), [tmp_path / "x.zarr"]):
        with pytest.raises(MissingDataError):
            open_source(data)


def test_lengths_that_differ_are_refused():
    with pytest.raises(DataError, match="same number"):
        open_source((X, Y[:-1]))
    with pytest.raises(DataError, match="same number"):
        open_source((da.from_array(X, chunks=5), da.from_array(Y[:-1], chunks=5)))
    bag = db.from_sequence([(X[0], np.zeros(5))], npartitions=1)
    with pytest.raises(DataError, match="same number"):
        labels_of(open_source(bag))


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(0, 9), max_size=6), data=st.data())
def test_cells_take_every_row_once_and_in_order(counts, data):
    total = sum(counts)
    cuts = sorted(data.draw(st.sets(st.integers(1, total - 1), max_size=5))) if total > 1 else []
    ends = [*cuts, *([total] if total else [])]
    sizes = np.diff([0, *ends]).tolist()
    plan = plan_cells(counts, sizes)
    starts = np.cumsum([0, *counts])
    found = [(cut.cell, starts[cut.partition] + i) for cut in plan for i in range(cut.start, cut.stop)]
    cells = [cell for cell, size in enumerate(sizes) for _ in range(size)]
    assert found == list(zip(cells, range(total), strict=True))


def test_a_bag_is_arranged_into_cells_of_given_sizes():
    bag = db.from_sequence([rows(0, 5), rows(5, 0), rows(5, 1), rows(6, 32), rows(38, 2)], npartitions=4)
    source = open_source(bag)
    assert sum(source.counts(InProcess())) == 40
    cells = source.arrange(InProcess(), [7, 1, 20, 12])
    numbers, found = zip(*map(open_cell, InProcess().map(lambda _, value: value, cells)), strict=True)
    assert numbers == (0, 1, 2, 3)
    assert [cell.examples for cell in found] == [7, 1, 20, 12]
    assert [int(i) for cell in found for i in cell.labels] == list(range(40))
    source.release()
    source.release()
    for sizes in ([39], [40, 0], []):
        with pytest.raises(ConfigurationError, match="add up to the 40 rows"):
            source.arrange(InProcess(), sizes)


def test_a_bag_that_does_not_repeat_is_noticed():
    calls = []

    def shrinking(items):
        calls.append(1)
        return items[: 1 if len(calls) > 1 else None]

    bag = db.from_sequence([rows(i, 1) for i in range(4)], npartitions=1).map_partitions(
        lambda items: shrinking(list(items))
    )
    with dask.config.set(scheduler="synchronous"), pytest.raises(DataError, match="not repeatable"):
        open_source(bag).arrange(InProcess(), [4])


def test_engines_are_not_imported_for_other_data(tmp_path):
    program = """
import sys, numpy as np, strombus.data as d
d.open_source((np.zeros((2, 1)), np.zeros(2)))
d.open_source([d.DataSet(np.zeros((2, 1)))])
print(sorted({"dask", "distributed", "pyspark", "torch", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
