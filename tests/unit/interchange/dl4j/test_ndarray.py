"""ND4J's binary arrays against those DL4J wrote, and against what a damaged or hostile one may do."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.dl4j import FLAG as F
from helpers.dl4j import array_of, shaped

from strombus.errors import DataError
from strombus.interchange.dl4j.binary import Input
from strombus.interchange.dl4j.ndarray import read_header, read_ndarray, skip_data, write_ndarray

FOLDER = Path(__file__).parents[3] / "golden/dl4j/datasets"
FIRST = sorted(p.stem for p in FOLDER.glob("*.bin") if not p.name.startswith(("multi", "empty")))
"""Files with features right after the first byte."""


def written(array, order=None):
    target = io.BytesIO()
    write_ndarray(target, array, order)
    return target.getvalue()


@pytest.mark.parametrize("kind", [bytes, io.BytesIO], ids=["bytes", "file"])
@pytest.mark.parametrize("name", FIRST)
def test_an_array_of_dl4j_is_read_bit_for_bit_and_written_byte_for_byte(name, kind):
    content = (FOLDER / f"{name}.bin").read_bytes()
    record = json.loads((FOLDER / f"{name}.json").read_text())["features"]
    stream = Input(kind(content[1:]))
    found = read_ndarray(stream)
    wanted = array_of(record)
    assert found.dtype == wanted.dtype
    assert found.dtype.isnative
    assert found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()
    if record["dtype"] != "BFLOAT16":
        assert written(found, record["order"]) == content[1 : 1 + stream.offset]


@pytest.mark.parametrize(
    "array",
    [
        np.array(2.5),
        np.arange(3, dtype=np.uint64) + 2**63,
        np.arange(6, dtype=np.uint16).reshape(1, 3, 1, 2),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(24.0)[::-2],
        np.zeros((0, 4), np.float32),
        np.arange(6, dtype=">i4").reshape(2, 3),
    ],
    ids=["scalar", "uint64", "ones", "permuted", "strided", "empty", "big-endian"],
)
def test_what_is_written_is_read_again(array):
    for order in (None, "c", "f"):
        found = read_ndarray(written(array, order))
        assert (found.shape, found.dtype) == (array.shape, array.dtype.newbyteorder("="))
        np.testing.assert_array_equal(found, array)


def test_fortran_order_and_single_bytes_are_not_copied():
    content = written(np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert np.shares_memory(read_ndarray(content), np.frombuffer(content, np.uint8))
    found = read_ndarray(written(np.asfortranarray(np.arange(12.0).reshape(3, 4))))
    assert found.flags.f_contiguous
    assert found.flags.writeable


def test_numbers_may_be_skipped():
    content = written(np.arange(6.0)) + written(np.arange(4, dtype=np.int8))
    for source in (content, io.BytesIO(content)):
        stream = Input(source)
        skip_data(stream, read_header(stream))
        np.testing.assert_array_equal(read_ndarray(stream), np.arange(4))
        assert stream.remaining == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (shaped([2, 2, 3, 3, 1, F, 1, 99], 6), "24 bytes, 0 are left"),
        (shaped([1, 2**60, 1, F, 1, 99], 2**60), "cut short"),
        (shaped([1, 2**62, 1, F, 1, 99], 2**62, data=bytes(64)), "cut short"),
        (shaped([2, 2**40, 2**40, 0, 0, F, 1, 99], 1, data=bytes(4)), "the file says 1"),
        (shaped([2, 2, 2, 1, 1, F, 1, 99], 4, data=bytes(16)), "repeat or pass"),
        (shaped([2, 2, 2, 4, 1, F, 1, 99], 4, data=bytes(16)), "leave numbers out"),
        (shaped([2, 2, 2, -2, 1, F, 1, 99], 4, data=bytes(16)), "no array has"),
        (shaped([1, -4, 1, F, 1, 99], -4, data=bytes(16)), "no array has"),
        (shaped([2, 5, 3, 4, 1, F, 1, 99], 20, data=bytes(80)), "15 numbers, the file says 20"),
        (shaped([3, 2, 2, 2, 1, F, 1, 99], 4, data=bytes(16)), "contradicts itself"),
        (shaped([1, 2, 1, F, 1, 100], 2, data=bytes(8)), "order 100"),
        (shaped([1, 2, 1, 0x20000, 1, 99], 2, data=bytes(8)), "of type INT by its flags"),
        (shaped([1, 2, 1, F | 4, 1, 99], 2, data=bytes(8)), "compressed or sparse"),
        (shaped([1, 2, 1, 0, 1, 99], 2, "UTF8", data=bytes(8)), "'UTF8' cannot be read"),
        (shaped([1, 2, 1, 0, 1, 99], 2, "COMPRESSED", data=bytes(8)), "'COMPRESSED' cannot be read"),
        (shaped([1, 2, 1, F, 1, 99], 2, mode="ANY", data=bytes(8)), "allocation mode"),
        (shaped([1, 2, 1, 0x80000, 1, 99], 2, "BOOL", data=bytes([1, 7])), "0 or 1, got 7"),
        (shaped([*[0] * 100], 2), "no array starts here"),
        (b"\xff\xffxx", "claims 65,535 bytes"),
        (b"", "2 bytes, 0 are left"),
        (written(np.arange(3.0)) + b"\0", "1 bytes follow"),
    ],
)
def test_a_contradiction_is_named_with_its_byte(content, reason):
    for source in (content, io.BytesIO(content)):
        with pytest.raises(DataError, match=rf"that file, byte [\d,]+: .*{reason}"):
            read_ndarray(source, "that file")


def test_an_old_file_has_short_lengths_and_flags_of_another_meaning():
    mode = b"\x00\x04HEAP"
    shape = mode + struct.pack(">i", 8) + b"\x00\x03INT" + struct.pack(">8i", 2, 2, 3, 3, 1, 0, 1, 99)
    content = shape + mode + struct.pack(">i", 6) + b"\x00\x05FLOAT" + np.arange(6, dtype=">f4").tobytes()
    np.testing.assert_array_equal(read_ndarray(content), np.arange(6, dtype=np.float32).reshape(2, 3))


@pytest.mark.parametrize(
    "value", [np.array(["a"]), np.array([1j]), np.zeros((1,) * 33)], ids=["text", "complex", "rank"]
)
def test_what_nd4j_has_not_is_refused(value):
    with pytest.raises(DataError, match="at most 32 axes of numbers"):
        written(value)
