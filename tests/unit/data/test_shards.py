"""Shards encoded and decoded directly hold what Zarr says they hold."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from strombus.data.shards import ShardReader, write_array
from strombus.errors import DataError


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 50),
    chunk=st.integers(1, 20),
    trailing=st.sampled_from([(), (3,), (2, 3)]),
    dtype=st.sampled_from(["uint8", "bool", "float32", ">i8", "complex64"]),
    order=st.sampled_from("CF"),
    data=st.data(),
)
def test_any_rows_equal_zarrs(tmp_path_factory, pool, rows, chunk, trailing, dtype, order, data):
    uri = str(tmp_path_factory.mktemp("shard") / "a")
    values = np.random.default_rng(rows).integers(0, 2, (rows, *trailing)).astype(dtype, order)
    write_array(uri, values, min(chunk, rows))
    array = zarr.open_array(uri, mode="r")
    np.testing.assert_array_equal(array[...], values)
    reader = ShardReader.of(array, uri)
    assert reader is not None
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    found = reader.read(start, stop, pool)
    assert found.dtype == array.dtype
    assert (found == array[start:stop]).all()


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (4, 3)},
        {"chunks": (4, 3), "shards": (4, 3)},
        {"chunks": (4, 1), "shards": (8, 3)},
        {"chunks": (4, 3), "shards": (8, 3), "compressors": None},
        {"chunks": (4, 3), "shards": (8, 3), "compressors": zarr.codecs.GzipCodec()},
        {"chunks": (4, 3), "shards": (8, 3), "compressors": zarr.codecs.ZstdCodec(checksum=False)},
    ],
)
def test_other_layouts_are_left_to_zarr(tmp_path, layout):
    array = zarr.create_array(tmp_path / "a", shape=(8, 3), dtype="float32", **layout)
    assert ShardReader.of(array, str(tmp_path / "a")) is None


@pytest.mark.parametrize("place", [0, 40, -1, -10, -30])
def test_a_flipped_bit_anywhere_is_an_error(tmp_path, pool, place):
    uri = str(tmp_path / "a")
    write_array(uri, np.random.default_rng(0).random((8, 3)), 4)
    shard = tmp_path / "a" / "c" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[place] ^= 16
    shard.write_bytes(bytes(content))
    with pytest.raises((DataError, RuntimeError)):
        ShardReader.of(zarr.open_array(uri, mode="r"), uri).read(0, 8, pool)
