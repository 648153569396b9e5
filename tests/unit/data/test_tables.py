"""Columns of tables are data: the same as the arrays that were put into them, wherever they lie."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import fsspec
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install strombus[tables])")

import pyarrow as pa
import pyarrow.parquet as pq
from helpers.networks import make_data, make_network
from hypothesis import given, settings
from hypothesis import strategies as st

import strombus as sb
from strombus.data import ParquetSource, epoch_order, open_source, read_batches, table
from strombus.errors import ConfigurationError, DataError, EmptyDataError, MissingDataError, StrombusWarning
from strombus.types import Block

X, Y = make_data(60)
W = np.random.default_rng(5).integers(0, 4, 60)
NAMES = [f"x{n}" for n in range(6)]
KEYS = np.array([f"row-{n}" for n in range(60)])


def frame():
    return pd.DataFrame({**dict(zip(NAMES, X.T, strict=True)), "y": Y, "w": W, "id": KEYS, "list": X.tolist()})


def placed(tmp_path, place):
    if place == "pandas":
        return frame()
    frame().to_parquet(tmp_path / "t.parquet", row_group_size=7)
    if place == "memory":
        fsspec.filesystem("memory").put(str(tmp_path / "t.parquet"), f"/{tmp_path.name}/t.parquet")
        return f"memory://{tmp_path.name}/t.parquet"
    return tmp_path / "t.parquet"


def read_all(source):
    blocks = [source.read(block) for block in source.blocks()]
    return {name: np.concatenate([columns[name] for columns in blocks]) for name in source.columns}


@pytest.mark.parametrize("place", ["pandas", "file", "memory"])
def test_a_table_trains_scores_and_predicts_as_its_arrays_do(tmp_path, local_executors, place):
    master = sb.ParameterAveragingTrainingMaster(workers=1, batch_size_per_worker=8, rng_seed=3)
    arrays = sb.DataSet(X, Y, None, W[:, None].astype(float))
    columns = {"features": NAMES if place != "file" else "list", "label": "y", "weight": "w", "key": "id"}
    found = []
    for data in (arrays, table(placed(tmp_path, place), **columns)):
        network = make_network("momentum")
        with sb.Trainer(network, master, backend=local_executors[1]) as trainer:
            result = trainer.fit(data, epochs=2, validation=data, progress=False)
            scores, outputs = trainer.score_examples(data, False), trainer.predict(data)
            if data is not arrays:
                keys, scores = scores
                assert keys.tolist() == KEYS.tolist()
                keys, found_outputs = trainer.feed_forward_with_key(data)
                assert keys.tolist() == KEYS.tolist()
                np.testing.assert_array_equal(found_outputs, outputs)
                stored = trainer.score_examples(data, False, to=tmp_path / "scores.zarr")
                assert stored["keys"][:].tolist() == KEYS.tolist()
                np.testing.assert_array_equal(stored["scores"][:], scores)
            figures = trainer.calculate_score(data), trainer.evaluate(data).confusion_matrix
        found.append((network.state().parameters, result.epochs[-1].validation["score"], scores, outputs, *figures))
    for wanted, got in zip(*found, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("place", ["pandas", "file"])
def test_labels_are_a_column_or_rows_of_columns(tmp_path, place):
    data = placed(tmp_path, place)
    wanted = {"y": Y, ("y",): Y[:, None], ("x0", "x3"): X[:, [0, 3]], "list": X}
    for label, values in wanted.items():
        source = table(data, "x1", label if isinstance(label, str) else list(label))
        np.testing.assert_array_equal(read_all(source)["labels"], values)
    mixed = read_all(table(data, ["y", "list", "x0"], dtype="float32"))
    assert set(mixed) == {"features"}
    np.testing.assert_array_equal(mixed["features"], np.hstack([Y[:, None], X, X[:, :1]]).astype("float32"))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_layout_of_parquet_gives_every_row_once(tmp_path_factory, data):
    """Whatever the files, row groups and pages: the same rows, in order, and each once in an epoch of any batches."""
    folder = tmp_path_factory.mktemp("layout")
    rows = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any), "rows of each file")
    ids = np.arange(sum(rows))
    columns = {
        "id": ids,
        "list": np.stack([ids, -ids], axis=1).astype(np.float32),
        "w": ids % 3,
        "key": ids.astype(str),
    }
    kind = data.draw(st.sampled_from([pa.list_(pa.float32()), pa.list_(pa.float32(), 2), pa.large_list(pa.float32())]))
    lists = pa.array(columns["list"].tolist(), kind)
    whole = pa.table({"id": ids, "list": lists, "w": columns["w"], "key": columns["key"]})
    start = 0
    for number, count in enumerate(rows):
        pq.write_table(
            whole.slice(start, count),
            folder / f"part-{number}.parquet",
            row_group_size=data.draw(st.integers(1, 50), "rows of a row group"),
            data_page_size=data.draw(st.sampled_from([16, 1 << 20])),
            use_dictionary=data.draw(st.booleans()),
        )
        start += count
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", StrombusWarning)
        sizes = data.draw(st.lists(st.sampled_from([30, 200, 1000, 1 << 20]), min_size=3, max_size=3).map(sorted))
        for name, size in zip(("BLOCK_BYTES", "STEP_BYTES", "CACHE_BYTES"), sizes, strict=True):
            patch.setattr(f"strombus.data.parquet_source.{name}", size)
        source = pickle.loads(pickle.dumps(table(folder, "list", "id", "w", "key")))
        assert isinstance(source, ParquetSource)
        filled = sum(count > 0 for count in rows)
        assert source.stored == ("1 file" if filled == 1 else f"{filled} files")
        found = read_all(source)
        np.testing.assert_array_equal(found["features"], columns["list"])
        np.testing.assert_array_equal(found["labels"], ids)
        np.testing.assert_array_equal(found["labels_mask"], (ids % 3)[:, None])
        low = data.draw(st.integers(0, len(ids) - 1))
        high = data.draw(st.integers(low + 1, len(ids)))
        assert source.read_keys(low, high).tolist() == columns["key"][low:high].tolist()
        order = epoch_order(source.blocks(), seed=1, epoch=0)
        size = data.draw(st.integers(1, len(ids)))
        sizes = [size] * (len(ids) // size) + [len(ids) % size] * (len(ids) % size > 0)
        with read_batches(source, order, 0, len(ids), sizes, seed=1, epoch=0) as batches:
            taken = [(batch.labels, batch.features) for batch in batches]
        labels = np.concatenate([labels for labels, _ in taken])
        assert sorted(labels.tolist()) == ids.tolist()
        np.testing.assert_array_equal(np.concatenate([features for _, features in taken]), columns["list"][labels])


def test_a_large_row_group_is_a_stream_that_is_read_once_in_order(tmp_path, monkeypatch):
    pq.write_table(pa.table({"x": np.arange(4000.0), "id": np.arange(4000)}), tmp_path / "t.parquet")
    for name, size in (("BLOCK_BYTES", 160), ("STEP_BYTES", 1600), ("CACHE_BYTES", 3200)):
        monkeypatch.setattr(f"strombus.data.parquet_source.{name}", size)
    with pytest.warns(
        StrombusWarning, match="row group of .*decodes it up to 40 times over; write row groups of a few"
    ):
        source = table(tmp_path / "t.parquet", "x", "id")
    opened = []
    real = ParquetSource._batches
    monkeypatch.setattr(ParquetSource, "_batches", lambda self, group: opened.append(group) or real(self, group))
    assert len(source.blocks()) == 40
    assert read_all(source)["labels"].tolist() == list(range(4000))
    assert len(opened) == 1
    assert source.read(Block(0, 5, 7))["labels"].tolist() == [5, 6]
    assert len(opened) == 2


def test_directories_lists_and_default_names(tmp_path):
    rows = pd.DataFrame({"features": X[:, 0], "label": Y})
    for number, folder in enumerate(["a=2", "a=10", "_temporary", ".hidden"]):
        (tmp_path / "d" / folder).mkdir(parents=True)
        rows[number * 15 : number * 15 + 15].to_parquet(tmp_path / "d" / folder / "p.parquet")
    (tmp_path / "d/_SUCCESS").touch()
    assert read_all(table(tmp_path / "d", "features", "label"))["labels"].tolist() == Y[:30].tolist()
    files = [tmp_path / "d/a=10/p.parquet", tmp_path / "d/a=2/p.parquet"]
    for source in (open_source(files), sb.data.open_dataset(files)):
        assert read_all(source)["labels"].tolist() == [*Y[15:30], *Y[:15]]
    assert set(open_source(files, label=None).columns) == {"features"}
    sb.data.export((X, Y), tmp_path / "z.zarr", progress=False)
    with pytest.raises(DataError, match=r"z.zarr holds Zarr, .* holds Parquet files; .*strombus data export"):
        open_source([tmp_path / "z.zarr", files[0]])
    with pytest.raises(MissingDataError, match="neither a file nor a directory"):
        table(tmp_path / "nothing", "x")
    with pytest.raises(MissingDataError, match=r"no file \*\.parquet"):
        table(tmp_path / "z.zarr", "x")


def test_an_export_keeps_weights_and_keys(tmp_path):
    source = table(placed(tmp_path, "file"), NAMES, "y", "w", "id")
    for name, data in (("a", source), ("b", table(frame(), NAMES, "y", "w", "id"))):
        sb.data.export(data, tmp_path / name, batch_size=4, progress=False)
        stored = sb.data.open_dataset(tmp_path / name)
        assert stored.keyed
        assert stored.read_keys(0, 60).tolist() == KEYS.tolist()
        for column, wanted in read_all(source).items():
            np.testing.assert_array_equal(read_all(stored)[column], wanted)
    sb.data.export(stored, tmp_path / "c", progress=False)
    assert sb.data.open_dataset(tmp_path / "c").read_keys(10, 12).tolist() == ["row-10", "row-11"]


GAPS = [1.0, np.nan, 3.0]
BAD = {
    "texts": (["a", "b", "c"], r"bad holds texts.*(cat\.codes|StringIndexer)"),
    "mixed": ([1, "b", 2.0], "bad (holds texts .*row 1|mixed)"),
    "categories": (pd.Categorical(["a", "b", "a"]), r"bad holds categories .*get_dummies"),
    "dates": (pd.date_range("2020-01-01", periods=3), "bad holds dates or times .*make them numbers"),
    "whole with a gap": (GAPS, "bad holds whole numbers and 1 NaN, the first at row 1"),
    "integers with a gap": (pd.array([1, None, None], "Int64"), "bad has 2 missing values, the first at row 1"),
    "lists with a gap": ([[1.0], None, [2.0]], "bad has a missing value at row 1"),
    "a gap in a list": ([[1.0, 2.0], [3.0, None], [2.0, 2.0]], "bad has a missing value at row 1"),
    "ragged": ([[1.0, 2.0], [1.0, 2.0], [3.0]], "bad need one shape: row 2"),
    "a list of texts": ([["a"], ["b"], ["c"]], "bad holds .*a network takes numbers"),
}
UNWRITTEN = {"mixed", "whole with a gap"}
"""A column of Parquet has one type, and pandas writes NaN as a missing value."""


@pytest.mark.parametrize(
    ("place", "name"),
    [*(("pandas", name) for name in BAD), *(("file", name) for name in sorted(BAD.keys() - UNWRITTEN))],
)
def test_what_holds_no_numbers_is_named_with_its_place(tmp_path, place, name):
    values, message = BAD[name]
    data = pd.DataFrame({"good": [1.0, 2.0, 3.0], "bad": values})
    if place == "file":
        data.to_parquet(tmp_path / "t.parquet")
        data = tmp_path / "t.parquet"
    with pytest.raises(DataError, match=message):
        read_all(table(data, ["good", "bad"]))


def test_files_that_do_not_go_together_are_named(tmp_path):
    for number, values in enumerate([[1, 2], [1.5, 2.5]]):
        pd.DataFrame({"x": values}).to_parquet(tmp_path / f"{number}.parquet")
    with pytest.raises(DataError, match=r"column x is double in .*1\.parquet and int64 in .*0\.parquet"):
        table(tmp_path, "x")
    pd.DataFrame({"y": [1]}).to_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet has no column x, it has y"):
        table(tmp_path, "x")
    for number, length in enumerate([2, 3]):
        pd.DataFrame({"x": [[1.0] * length] * 2}).to_parquet(tmp_path / f"{number}.parquet")
    with pytest.raises(DataError, match=r"x need one shape: row 0 of .*1\.parquet has float64\[3\], .*float64\[2\]"):
        read_all(table(tmp_path, "x"))
    pd.DataFrame({"x": [1.0, -1.0]}).to_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"weight column x holds -1.0 at row 1 of .*1\.parquet"):
        read_all(table(tmp_path / "1.parquet", "x", weight="x"))
    source = table(tmp_path / "1.parquet", "x")
    pd.DataFrame({"x": [1.0]}).to_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match="has changed since the data was opened"):
        read_all(source)
    (tmp_path / "1.parquet").write_bytes(b"PAR1 no such thing PAR1")
    with pytest.raises(DataError, match=r"1\.parquet cannot be read as Parquet"):
        table(tmp_path / "1.parquet", "x")
    pd.DataFrame({"x": []}).to_parquet(tmp_path / "1.parquet")
    with pytest.raises(EmptyDataError, match="none of the 1 Parquet files"):
        table(tmp_path / "1.parquet", "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": []}, "features needs at least one column"),
        ({"features": [["a"]]}, "features must be a column's name or a list of names"),
        ({"features": ["x0", "x0"]}, "features names a column twice: x0"),
        ({"features": "x0", "weight": ["w"]}, "weight must be the name of one column"),
        ({"features": "x0", "dtype": "str"}, "dtype must be a type of numbers"),
        ({"features": ["x0", "nothing"]}, "has no column nothing, it has x0, x1"),
        ({"features": "x0", "key": "list"}, "key column list must hold numbers or strings, got list"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises((ConfigurationError, DataError), match=message):
        table(frame(), **options)


def test_what_is_no_table_and_columns_without_names():
    with pytest.raises(DataError, match="a table is a pandas, Dask or Spark DataFrame"):
        table([1, 2], "x")
    numbered = read_all(table(pd.DataFrame(X), [2, 0], 5))
    np.testing.assert_array_equal(numbered["features"], X[:, [2, 0]])
    np.testing.assert_array_equal(numbered["labels"], X[:, 5])
    with pytest.raises(DataError, match="several columns a"):
        table(pd.DataFrame([[1, 2]], columns=["a", "a"]), "a")


def test_keys_are_needed_for_outputs_by_key(local_executors):
    network = sb.MultiLayerNetwork(nn.Linear(6, 3), nn.CrossEntropyLoss(), torch.optim.SGD)
    with sb.Trainer(network, backend=local_executors[1]) as trainer, pytest.raises(DataError, match="key column"):
        trainer.feed_forward_with_key(table(frame(), NAMES))


def test_without_pyarrow_the_extra_is_named(tmp_path):
    pd.DataFrame({"x": [1.0]}).to_parquet(tmp_path / "t.parquet")
    program = f"""
import sys
sys.modules["pyarrow"] = None
import strombus as sb
try:
    sb.data.table({str(tmp_path)!r}, "x")
except sb.errors.ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install strombus[tables]" in done.stdout
