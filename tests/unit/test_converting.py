"""What DL4J exported becomes a dataset: every row once and in order, interrupted or not; bad files are named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.dl4j import array_of

import strombus as sb
from strombus.cli import main
from strombus.compat.dl4j.data_validation import SparkDataValidation
from strombus.data import open_dataset, read_manifest
from strombus.data.conversion import convert_load
from strombus.errors import (
    ConfigurationError,
    DataError,
    EmptyDataError,
    StrombusWarning,
    TaskError,
    UnfinishedExportError,
)
from strombus.interchange.dl4j.datasets import write_dataset
from strombus.types import DataSet

GOLDEN = Path(__file__).parents[1] / "golden/dl4j"


def rows(start, count):
    ids = np.arange(start, start + count)
    return DataSet(np.stack([ids, ids], axis=1).astype(np.float32), ids[:, None].astype(np.float64))


def save(folder, sizes=(3, 1, 40, 2, 7, 9, 4, 1, 1, 60, 2, 30)):
    """Write files of these numbers of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(np.cumsum([0, *sizes[:-1]])):
        with open(folder / f"dataset_0_{number}.bin", "wb") as file:
            write_dataset(file, rows(start, sizes[number]))
    return sum(sizes)


def read_all(source):
    blocks = [source.read(block) for block in source.blocks()]
    return {name: np.concatenate([columns[name] for columns in blocks]) for name in source.columns}


def ids(path):
    found = read_all(open_dataset(path))
    assert (found["features"] == found["labels"]).all()
    return found["labels"][:, 0].astype(int).tolist()


@pytest.fixture
def small(monkeypatch):
    """Loads of about 1000 bytes, parts of 16 rows, chunks of 8."""
    monkeypatch.setattr("strombus.data.conversion.LOAD_BYTES", 1000)
    monkeypatch.setattr("strombus.data.writer.CHUNK_BYTES", 8 * 8)
    monkeypatch.setattr("strombus.data.writer.PART_BYTES", 16 * 8)


def convert(source, target, executor, **options):
    return sb.data.import_dl4j(source, target, executor=executor, progress=False, **options)


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_every_row_once_and_in_order(tmp_path, small, local_executors, batch_size):
    total = save(tmp_path / "in")
    found = convert(tmp_path / "in", tmp_path / "d.zarr", local_executors[1], batch_size=batch_size)
    assert ids(tmp_path / "d.zarr") == list(range(total))
    manifest = read_manifest(tmp_path / "d.zarr")
    assert (found.examples, found.files, found.parts) == (total, 12, len(manifest.parts))
    assert found.columns == {"features": ("float32", (2,)), "labels": ("float64", (1,))}
    assert sb.data.validate(tmp_path / "d.zarr", backend=local_executors[1]).ok
    assert manifest.chunk_rows % batch_size == 0
    assert len(manifest.parts) > 3
    assert sorted(os.listdir(tmp_path / "d.zarr")) == sorted([*(part.name for part in manifest.parts), "zarr.json"])


@pytest.mark.parametrize("name", ["data_sets_batch_4", "multi_data_sets_batch_4"])
def test_an_exported_directory_of_dl4j_loses_nothing(tmp_path, local_executors, name):
    source = open_dataset(GOLDEN / "exported" / name)
    convert(GOLDEN / "exported" / name, tmp_path / "d.zarr", local_executors[1])
    converted, direct = read_all(open_dataset(tmp_path / "d.zarr")), read_all(source)
    assert open_dataset(tmp_path / "d.zarr").layout == source.layout
    for column, array in direct.items():
        np.testing.assert_array_equal(converted[column], array)


@pytest.mark.parametrize("name", ["time_series_masks", "multi_masks_some_null", "bool_features", "float16", "bfloat16"])
def test_masks_and_dtypes_arrive(tmp_path, local_executors, name):
    shutil.copy(GOLDEN / f"datasets/{name}.bin", tmp_path)
    convert(tmp_path, "memory://converted/" + name, local_executors[1])
    record = json.loads((GOLDEN / f"datasets/{name}.json").read_text())
    found = read_all(open_dataset("memory://converted/" + name))
    for column, array in found.items():
        key, number = (column, None) if column in record else column.rsplit("_", 1)
        wanted = array_of(record[key] if number is None else record[key][int(number)])
        assert array.dtype == wanted.dtype
        np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_of_several_parts_and_masks_that_come_and_go(tmp_path, small, local_executors, order):
    ids = np.arange(70, dtype=np.float32)
    one = np.asarray(np.stack([ids, ids], axis=1), order=order)
    mask = np.stack([ids % 2, ids % 3], axis=1).astype(np.float32)
    pieces = [(slice(0, 3), False), (slice(3, 50), True), (slice(50, 53), False), (slice(53, 70), True)]
    for number, (span, masked) in enumerate(pieces):
        with open(tmp_path / f"{number}.bin", "wb") as file:
            write_dataset(file, DataSet(one[span], one[span], None, mask[span] if masked else None))
        if not masked:
            mask[span] = 1
    convert(tmp_path, tmp_path / "d.zarr", local_executors[1], batch_size=4)
    found = read_all(open_dataset(tmp_path / "d.zarr"))
    np.testing.assert_array_equal(found["features"], one)
    np.testing.assert_array_equal(found["labels_mask"], mask)


def bad(folder):
    """Add a file cut short, one of other shapes, one without examples, and what is no data."""
    whole = (folder / "dataset_0_5.bin").read_bytes()
    (folder / "dataset_0_5.bin").write_bytes(whole[:-10])
    shutil.copy(GOLDEN / "datasets/one_example.bin", folder / "dataset_0_20.bin")
    (folder / "dataset_0_21.bin").write_bytes(b"\0")
    (folder / "dataset_0.bin").write_bytes(b"")  # first by name
    (folder / "README").write_text("see the wiki")
    (folder / ".dataset_0_0.bin.crc").write_text("crc")


def test_bad_files_are_listed_with_byte_and_reason_or_end_the_import(tmp_path, small, local_executors):
    total = save(tmp_path / "in")
    bad(tmp_path / "in")
    target = tmp_path / "d.zarr"
    with pytest.raises(DataError, match=r"dataset_0\.bin, byte 0"):
        convert(tmp_path / "in", target, local_executors[1])
    (tmp_path / "in/dataset_0.bin").rename(tmp_path / "in/dataset_0_22.bin")
    with pytest.raises(DataError, match=r"in/dataset_0_5\.bin, byte \d+: .* are left.*--bad-files list") as caught:
        convert(tmp_path / "in", target, local_executors[1])
    assert str(caught.value).startswith(str(tmp_path))
    assert isinstance(caught.value.__cause__, TaskError)
    with pytest.raises(UnfinishedExportError, match="run it again"):
        open_dataset(target)
    found = convert(tmp_path / "in", target, local_executors[1], bad_files="list")
    assert ids(target) == [i for i in range(total) if not 53 <= i < 62]
    assert [Path(one.file).name for one in found.skipped] == [
        "dataset_0_5.bin",
        "dataset_0_20.bin",
        "dataset_0_21.bin",
        "dataset_0_22.bin",
        "README",
    ]
    assert [one.bad for one in found.skipped] == [True, True, False, True, False]
    text = str(found)
    assert "dataset_0_5.bin, byte " in text
    assert "dataset_0_20.bin, byte 0: it is DataSet(features float32[4]" in text
    assert "dataset_0_21.bin: no examples" in text
    assert "from 11 files" in text
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "in").glob("dataset*.bin")}
    share = (sizes["dataset_0_5.bin"] + sizes["dataset_0_20.bin"]) / sum(sizes.values())
    assert found.lost == pytest.approx(share)
    assert f"left out 3 bad files, {share:.2%} of all bytes:\n" in text


def test_an_import_that_is_interrupted_goes_on_where_it_ended(tmp_path, small, local_executors, monkeypatch):
    total = save(tmp_path / "in")
    target, done = tmp_path / "d.zarr", []

    def task(settings, load):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(load.key)
        return convert_load(settings, load)

    monkeypatch.setattr("strombus.converting.convert_load", task)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "in", target, local_executors[1])
    with pytest.raises(UnfinishedExportError, match="run it again"):
        open_dataset(target)
    shutil.rmtree(next(path for path in target.iterdir() if path.name.startswith("part-")))
    again = []
    monkeypatch.setattr("strombus.converting.convert_load", lambda *a: again.append(a[1].key) or convert_load(*a))
    convert(tmp_path / "in", target, local_executors[1])
    assert ids(target) == list(range(total))
    assert len(done) == 3
    assert len(set(done) & set(again)) == 1  # the one that lost a part
    assert len(again) > 3
    assert len(os.listdir(target)) == len(read_manifest(target).parts) + 1


def test_what_changed_between_two_runs_is_converted_again(tmp_path, small, local_executors):
    total = save(tmp_path / "in")
    whole = (tmp_path / "in/dataset_0_9.bin").read_bytes()
    (tmp_path / "in/dataset_0_9.bin").write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"dataset_0_9\.bin"):
        convert(tmp_path / "in", tmp_path / "d.zarr", local_executors[1])
    (tmp_path / "in/dataset_0_9.bin").write_bytes(whole)
    with open(tmp_path / "in/dataset_0_0.bin", "wb") as file:
        write_dataset(file, rows(1000, 3))
    convert(tmp_path / "in", tmp_path / "d.zarr", local_executors[1])
    assert ids(tmp_path / "d.zarr") == [1000, 1001, 1002, *range(3, total)]


def test_a_dataset_is_not_replaced_by_accident(tmp_path, local_executors):
    save(tmp_path / "in", (5,))
    convert(tmp_path / "in", tmp_path / "d.zarr", local_executors[1])
    (tmp_path / "d.zarr/import-dl4j").mkdir()  # as of one that was killed after its last row
    with pytest.raises(DataError, match="overwrite"):
        convert(tmp_path / "in", tmp_path / "d.zarr", local_executors[1])
    save(tmp_path / "in", (4,))
    convert(tmp_path / "in", tmp_path / "d.zarr", local_executors[1], overwrite=True)
    assert ids(tmp_path / "d.zarr") == [0, 1, 2, 3]


def test_metadata_is_counted_and_warned_of_once(tmp_path, local_executors):
    for name in "ab":
        shutil.copy(GOLDEN / "datasets/with_meta_data.bin", tmp_path / f"{name}.bin")
    with pytest.warns(StrombusWarning, match="2 files have metadata") as caught:
        found = convert(tmp_path, tmp_path / "d.zarr", local_executors[1])
    assert len(caught) == 1
    assert "left out metadata of examples, as Java serialises it, of 2 files" in str(found)


def test_what_cannot_be_converted_is_said(tmp_path, local_executors):
    save(tmp_path / "in", (5,))
    with pytest.raises(ConfigurationError, match="the source and the target"):
        convert(tmp_path / "in", tmp_path / "in", local_executors[1])
    with pytest.raises(ConfigurationError, match="bad_files"):
        convert(tmp_path / "in", tmp_path / "d.zarr", local_executors[1], bad_files="skip")
    (tmp_path / "in/dataset_0_0.bin").write_bytes(b"x")
    with pytest.raises(EmptyDataError, match="no example can be read, of 1 file: "):
        convert(tmp_path / "in", tmp_path / "d.zarr", local_executors[1], bad_files="list")
    assert not (tmp_path / "d.zarr").exists()


def test_the_command_prints_the_inventory_and_names_a_bad_file(tmp_path):
    source, target = str(GOLDEN / "exported/data_sets_batch_4"), str(tmp_path / "d.zarr")
    result = CliRunner().invoke(main, ["data", "import-dl4j", source, target])
    assert (result.exit_code, result.output.splitlines()) == (
        0,
        [
            "DataSet of 30 examples from 8 files, in 1 part",
            "  features         float32    (3,)",
            "  labels           float32    (2,)",
        ],
    )
    assert CliRunner().invoke(main, ["data", "inspect", source]).output.startswith("DataSet of 30 examples in 8 files")
    checked = CliRunner().invoke(main, ["data", "validate", source])
    assert (checked.exit_code, checked.output) == (0, "8 of 8 files valid, 30 examples\n")
    save(tmp_path / "in")
    bad(tmp_path / "in")
    result = CliRunner().invoke(main, ["data", "import-dl4j", str(tmp_path / "in"), str(tmp_path / "e.zarr")])
    assert result.exit_code == 6
    assert "dataset_0.bin, byte 0" in result.stderr
    (tmp_path / "in/dataset_0.bin").unlink()
    arguments = ["--verbose", "data", "import-dl4j", str(tmp_path / "in"), str(tmp_path / "e.zarr")]
    result = CliRunner().invoke(main, arguments)
    assert "in convert_load" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"Error: {tmp_path}/in/dataset_0_5.bin, byte ")


def test_each_kind_of_damage_to_a_directory_is_found_and_set_aside(tmp_path, monkeypatch, local_executors):
    monkeypatch.setattr("strombus.data.dl4j_validation.READ_BYTES", 100)
    monkeypatch.setattr("strombus.data.dl4j_validation.TASK_FILES", 5)
    folder, total = tmp_path / "in", save(tmp_path / "in")
    bad(folder)
    wrong = rows(500, 40)
    wrong.features[[3, 39], 1] = np.nan, np.inf
    write_dataset(folder / "dataset_0_23.bin", wrong)
    found = sb.data.validate(folder, backend=local_executors[1], quarantine=True)
    assert [(one.part, one.kind) for one in found.problems] == [
        ("dataset_0.bin", "corrupt"),
        ("dataset_0_5.bin", "corrupt"),
        ("dataset_0_20.bin", "mismatched"),
        ("dataset_0_23.bin", "non_finite"),
    ]
    assert str(found).splitlines()[0] == (
        f"12 of 16 files valid, {total - 9} examples; 2 corrupt, 1 mismatched, 1 non-finite"
    )
    assert "dataset_0.bin: corrupt: byte 0: " in str(found)
    assert "features has 2 NaN or infinite values" in str(found)
    assert sorted(os.listdir(folder / "quarantine")) == sorted(found.quarantined)
    assert sb.data.validate(folder, backend=local_executors[1]).examples == open_dataset(folder).rows == total - 9
    report = SparkDataValidation.validateDataSets(local_executors[1], str(folder), [-1, 3], [-1, 1])
    assert (report.mismatched, report.total) == (11, 12)
