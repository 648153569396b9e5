"""Files of ``DataSet.save`` and ``MultiDataSet.save``: those that DL4J wrote, damaged ones, and ours."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers.dl4j import FLAG as F
from helpers.dl4j import array_of, shaped

from strombus.errors import DataError
from strombus.interchange.dl4j.binary import Input
from strombus.interchange.dl4j.datasets import describe_dataset, read_dataset, read_rows, write_dataset
from strombus.types import DataSet, MultiDataSet, from_columns

GOLDEN = Path(__file__).parents[3] / "golden/dl4j"
NAMES = [
    "bfloat16",
    "bool_features",
    "dense_float32_c",
    "dense_float32_f_order",
    "dense_float64",
    "empty_dataset",
    "features_same_as_labels",
    "float16",
    "images_nchw",
    "int16_features",
    "int32_features",
    "int64_features",
    "int8_features",
    "labels_mask_per_output",
    "multi_masks_some_null",
    "multi_mixed_dtypes",
    "multi_no_labels",
    "multi_one_in_one_out",
    "multi_two_in_two_out",
    "nan_and_infinity",
    "no_labels",
    "one_example",
    "time_series_features_mask_only",
    "time_series_masks",
    "uint32_features",
    "uint8_features",
    "view_not_contiguous",
    "with_label_names",
    "with_meta_data",
]
CASES = int(os.environ.get("STROMBUS_MUTATIONS", "2000"))


def content(name):
    return (GOLDEN / f"datasets/{name}.bin").read_bytes()


def wanted(record):
    """Return the columns of a golden JSON file."""
    if record["kind"] == "DataSet":
        names = ("features", "labels", "features_mask", "labels_mask")
        return {name: array_of(record[name]) for name in names if record[name] is not None}
    return {
        f"{name}_{i}": array_of(one)
        for name in ("features", "labels", "features_mask", "labels_mask")
        for i, one in enumerate(record[name] or ())
        if one is not None
    }


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_dl4j_is_read_bit_for_bit(name):
    record = json.loads((GOLDEN / f"datasets/{name}.json").read_text())
    expected = wanted(record)
    for source in (content(name), io.BytesIO(content(name))):
        found = read_dataset(source)
        assert_same(found.columns() if found is not None else {}, expected)
        assert found is None or found.kind == record["kind"]
    described = describe_dataset(io.BytesIO(content(name)))
    rows = len(next(iter(expected.values()), ()))
    assert (described.kind, described.rows, list(described.arrays)) == (record["kind"], rows, list(expected))
    assert {n: p.header.dtype for n, p in described.arrays.items()} == {n: a.dtype for n, a in expected.items()}
    assert described.metadata == (129 if name == "with_meta_data" else 0)
    for start, stop in ((0, rows), (rows // 3, rows), (0, rows - 1), (1, 1)) if rows else ():
        stream = Input(io.BytesIO(content(name)))
        assert_same(read_rows(stream, described, start, stop), {n: a[start:stop] for n, a in expected.items()})


def test_no_golden_file_is_left_out():
    assert sorted(path.stem for path in (GOLDEN / "datasets").glob("*.bin")) == sorted(NAMES)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in {"bfloat16", "empty_dataset", "with_meta_data"}])
def test_what_is_written_is_what_dl4j_writes(name):
    target = io.BytesIO()
    write_dataset(target, read_dataset(content(name)))
    assert target.getvalue() == content(name)


def test_labels_that_are_the_features_are_stored_once():
    found = read_dataset(content("features_same_as_labels"))
    assert np.shares_memory(found.features, found.labels)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_cut_short_anywhere_is_refused(name):
    whole = content(name)
    ends = len(whole) - 125 if name == "with_meta_data" else len(whole)  # how Java's objects go on nobody looks at
    for end in range(ends):
        for read in (read_dataset, describe_dataset):
            if end == 1 and whole[0] == 0:
                continue  # the first byte of a MultiDataSet alone is a DataSet without arrays
            with pytest.raises(DataError, match=r"the file, byte [\d,]+: "):
                read(whole[:end])


def damaged(whole, rng):
    """Return a copy with a byte or a few changed, taken out or put in."""
    found, kind = bytearray(whole), rng.integers(4)
    at = int(rng.integers(len(found)))
    if kind == 0:
        found[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        found[at] = int(rng.integers(256))
    elif kind == 2:
        del found[at : at + int(rng.integers(1, 9))]
    else:
        span = slice(at, at + int(rng.integers(1, 9)))
        found[span] = rng.bytes(len(found[span]))
    return bytes(found)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "empty_dataset"])
def test_a_damaged_file_is_refused_or_differs_in_its_numbers_alone(name):
    """What is read has the shapes and dtypes of the original; a number that was not hit is the number it was.

    However large a length has become, no more memory is taken than a few times that of the file.
    """
    whole, rng = content(name), np.random.default_rng(NAMES.index(name))
    original, described = read_dataset(whole).columns(), describe_dataset(whole)
    spans = {n: (p.offset, p.offset + p.header.nbytes) for n, p in described.arrays.items()}
    refused = []
    tracemalloc.start()
    for _ in range(-(-CASES // len(NAMES))):
        changed = damaged(whole, rng)
        try:
            found = read_dataset(changed)
        except DataError as error:
            refused.append(str(error))
            continue
        columns = {} if found is None else found.columns()
        hit = [a != b for a, b in zip(whole, changed, strict=False)]
        for column, array in columns.items():
            if column == "labels" and "labels" not in original:
                continue  # one bit of the first byte says whether the labels are the features
            assert (array.dtype, array.shape) == (original[column].dtype, original[column].shape)
            start, stop = spans[column]
            if len(whole) == len(changed) and not any(hit[start:stop]):
                assert array.tobytes() == original[column].tobytes(), column
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000 + 1000 * -(-CASES // len(NAMES))  # the reasons are kept
    assert refused
    assert all("the file, byte" in reason for reason in refused)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "1 bytes, 0 are left"),
        (b"\x02", "features must be there"),
        (b"\x41", "starts with the byte 0x41"),
        (b"\x07", "labels at most once"),
        (b"\x01" + b"\xac\xed\x00\x05sr", "claims 44,269 bytes"),
        (b"\x00\x7f\xff\xff\xff" + bytes(11), "are not credible"),
        (b"\xff\xff\xff\xff" + bytes(12), "starts with the byte 0xff"),
        (b"\x00\x00\x00\x01\xff\xff\xff\xff" + bytes(80), "are not credible"),
        (b"\x00\x00\x00\x02" + bytes(4) + b"\x00\x00\x00\x01" + bytes(4 + 400), "do not go together"),
        (b"\x00\x00\x00\x00\x00\x00\x00\x01" + bytes(8 + 400), "do not go together"),
        (b"\x01" + shaped([2, 2**60, 0, 0, 1, F, 1, 99], 0), "examples without values"),
        (b"\x01" + shaped([0, F, 1, 99], 1, data=bytes(4)), "the same number of examples"),
        (b"PK\x03\x04" + bytes(30), "starts with the byte 0x50"),
        (content("with_meta_data")[:-129] + b"\x80\x04K\x01.", "metadata must stand here"),
        (content("no_labels") + b"\0", "1 bytes follow the last array"),
        (b"\x03" + content("one_example")[1:146] + content("dense_float64")[179:], "the same number of examples"),
    ],
)
def test_what_is_no_file_of_dl4j_is_named_with_its_byte(data, reason):
    for read in (read_dataset, describe_dataset):
        with pytest.raises(DataError, match=rf"byte [\d,]+: .*{reason}"):
            read(data)


def test_a_data_set_without_examples_has_none():
    assert read_dataset(b"\0") is None
    assert read_dataset(bytes(16)) is None
    assert describe_dataset(bytes(16)).rows == 0


def test_masks_of_a_multi_data_set_may_be_missing():
    ones = np.ones((2, 3), np.float32)
    target = io.BytesIO()
    write_dataset(target, MultiDataSet([ones, ones], [ones], [None, ones], [None]))
    found = read_dataset(target.getvalue())
    assert_same(found.columns(), from_columns("MultiDataSet", found.columns()).columns())
    assert [mask is None for mask in (*found.features_masks, *found.labels_masks)] == [True, False, True]


def test_what_nd4j_has_not_is_not_written():
    with pytest.raises(DataError, match="of dtype complex64"):
        write_dataset(io.BytesIO(), DataSet(np.ones((2, 2), np.complex64)))


def test_a_file_may_be_named(tmp_path):
    rows = DataSet(np.arange(6, dtype=np.float32).reshape(3, 2), np.eye(3, dtype=np.float32))
    write_dataset(tmp_path / "one.bin", rows)
    found = read_dataset(str(tmp_path / "one.bin"))
    np.testing.assert_array_equal(found.features, rows.features)
    os.truncate(tmp_path / "one.bin", 100)
    with pytest.raises(DataError, match=r"one\.bin, byte "):
        read_dataset(tmp_path / "one.bin")
