"""Datasets that were made to do harm are refused, by name and reason, before they cost memory or time."""

from __future__ import annotations

import functools
import gzip
import json
import os
import pickle
import subprocess
import sys
import zlib

import numcodecs
import numpy as np
import pytest
import zarr
import zstandard

import strombus as sb
from strombus.data import open_dataset
from strombus.data.validation import Expected, check_part, validate_dataset
from strombus.errors import DataError
from strombus.types import DataSet

ROWS = 4
"""Rows of a small dataset, three values each."""

READ = """
import json, os, resource, sys, time
import zarr
from strombus.data import open_dataset
from strombus.data.shards import write_array
from strombus.errors import DataError

write_array(sys.argv[1] + "/warm", __import__("numpy").ones((4, 3)), 2)
open(sys.argv[1] + "/labels", "w").close()
zarr.open_array(sys.argv[1] + "/warm", mode="r")[:]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
found = {}
for path in sys.argv[2:]:
    started, what = time.monotonic(), "read"
    try:
        source = open_dataset(path)
        blocks = source.blocks()
        source.read(blocks[0])
        source.read(blocks[-1])
        if source.keyed:
            source.read_keys(0, source.rows)
    except DataError as error:
        what = str(error)
    except BaseException as error:
        what = f"{type(error).__name__}: {error}"
    found[path] = (what, time.monotonic() - started, type(what).__name__)
# A process's own peak: ru_maxrss begins with that of the process that started it.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([found, int(peak)]))
"""


def plain(path, features=None, **options):
    """Write a plain group with `features` of these options, and fitting labels."""
    group = zarr.open_group(path, mode="w", zarr_format=options.pop("zarr_format", 3))
    values = np.arange(3 * ROWS, dtype="float32").reshape(ROWS, 3) if features is None else features
    array = group.create_array("features", shape=values.shape, dtype=values.dtype, **{"chunks": (2, 3), **options})
    array[:] = values
    group.create_array("labels", data=np.arange(len(values)), chunks=(2,))


def listed(path):
    """Write a dataset as Strombus does; return its only part's path."""
    sb.data.export(DataSet(np.ones((ROWS, 3), "float32"), np.arange(ROWS)), path, progress=False)
    return next(path.glob("part-*"))


def edit(file, change):
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def set_shape(path, shape, chunks=None):
    def change(record):
        record["shape"] = shape
        if chunks is not None:
            record["chunk_grid"]["configuration"]["chunk_shape"] = chunks

    for name in ("features", "labels"):
        if name == "features" or shape[0] != ROWS:
            edit(
                path / name / "zarr.json",
                change if name == "features" else lambda record: record.update(shape=shape[:1]),
            )


def manifest(path, **changes):
    edit(path / "zarr.json", lambda record: record["attributes"]["strombus"].update(changes))


def put_chunk(path, data):
    (path / "features" / "c" / "0" / "0").write_bytes(data)


def many_rows(path):
    plain(path)
    set_shape(path, [2**40, 3])


def many_rows_in_large_chunks(path):
    plain(path)
    set_shape(path, [2**38, 3], [2**24, 3])


def wide_rows(path):
    plain(path)
    set_shape(path, [ROWS, 2**40], [1, 2**38])


def wide_rows_in_small_chunks(path):
    plain(path)
    set_shape(path, [ROWS, 2**28], [1, 2**20])


def large_chunks(path):
    plain(path)
    set_shape(path, [ROWS, 3], [2**40, 3])


def large_shards(path):
    plain(path, chunks=(2, 3), shards=(4, 3))
    edit(
        path / "features" / "zarr.json",
        lambda record: record["chunk_grid"]["configuration"].update(chunk_shape=[2**40, 3]),
    )


def many_dimensions(path):
    plain(path)
    set_shape(path, [ROWS] + [1] * 100, [2] + [1] * 100)


def negative_shape(path):
    plain(path)
    set_shape(path, [ROWS, -3])


def zero_chunks(path):
    plain(path)
    set_shape(path, [ROWS, 3], [0, 3])


def shape_of_texts(path):
    plain(path)
    set_shape(path, ["4", {"a": 1}])


def manifest_of_many_rows(path):
    part = listed(path)
    manifest(path, examples=2**60, parts=[{"name": part.name, "examples": 2**60, "columns": ["features", "labels"]}])


def manifest_of_large_chunks(path):
    part = listed(path)
    manifest(
        path,
        examples=2**40,
        chunk_rows=2**40,
        parts=[{"name": part.name, "examples": 2**40, "columns": ["features", "labels"]}],
    )


def manifest_of_wide_rows(path):
    listed(path)
    manifest(path, columns={"features": {"dtype": "float32", "shape": [2**20] * 4}})


def manifest_of_wide_texts(path):
    listed(path)
    manifest(path, columns={"features": {"dtype": "U500000000", "shape": []}})


def manifest_of_objects(path):
    listed(path)
    manifest(path, columns={"features": {"dtype": "object", "shape": []}})


def manifest_of_no_dtype(path):
    listed(path)
    manifest(path, columns={"features": {"dtype": "(3,)f4, O", "shape": []}})


def manifest_of_negative_sides(path):
    listed(path)
    manifest(path, columns={"features": {"dtype": "float32", "shape": [-3]}})


def manifest_of_millions_of_errors(path):
    listed(path)
    manifest(path, parts=[{}] * 1_000_000)


def manifest_of_a_list(path):
    listed(path)
    edit(path / "zarr.json", lambda record: record["attributes"].update(strombus=[1]))


def attributes_of_a_list(path):
    listed(path)
    edit(path / "zarr.json", lambda record: record.update(attributes=[1]))


def deep_manifest(path):
    listed(path)
    file = path / "zarr.json"
    file.write_text('{"zarr_format": 3, "node_type": "group", "attributes": ' + '{"a":' * 50_000 + "1" + "}" * 50_001)


def deep_array(path):
    plain(path)
    file = path / "features" / "zarr.json"
    file.write_text(
        file.read_text().replace('"attributes": {}', '"attributes": ' + '{"a":' * 100_000 + "1" + "}" * 100_000)
    )


def huge_manifest(path):
    listed(path)
    os.truncate(path / "zarr.json", 2**36)


def huge_metadata(path):
    plain(path)
    os.truncate(path / "features" / "zarr.json", 2**36)


def huge_chunk_file(path):
    plain(path)
    os.truncate(path / "features" / "c" / "0" / "0", 2**36)


def huge_shard_file(path):
    part = listed(path)
    os.truncate(next((part / "features").rglob("c/*/*")), 2**36)


@functools.cache
def gzip_of_half_a_gigabyte():
    stream = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(stream.compress(bytes(2**20)) for _ in range(512)) + stream.flush()


def zstd_bomb(path):
    plain(path, compressors=zarr.codecs.ZstdCodec())
    put_chunk(path, zstandard.ZstdCompressor().compress(bytes(2**30)))


def zstd_bomb_of_no_size(path):
    plain(path, compressors=zarr.codecs.ZstdCodec())
    stream = zstandard.ZstdCompressor().compressobj()
    put_chunk(path, b"".join(stream.compress(bytes(2**20)) for _ in range(1024)) + stream.flush())


def zstd_that_claims_much(path):
    plain(path, compressors=zarr.codecs.ZstdCodec())
    put_chunk(path, b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little") + bytes(20))


def gzip_bomb(path):
    plain(path, compressors=zarr.codecs.GzipCodec())
    put_chunk(path, gzip_of_half_a_gigabyte())


def gzip_bomb_in_members(path):
    plain(path, compressors=zarr.codecs.GzipCodec())
    put_chunk(path, gzip.compress(bytes(20)) * 300_000)


def blosc_bomb(path):
    plain(path, compressors=zarr.codecs.BloscCodec())
    put_chunk(path, numcodecs.Blosc("lz4", 1).encode(bytes(2**29)))


def bomb_in_a_shard(path):
    plain(path, chunks=(2, 3), shards=(4, 3), compressors=zarr.codecs.GzipCodec())
    bomb = gzip_of_half_a_gigabyte()
    index = np.array([0, len(bomb), 0, len(bomb)], "<u8").tobytes()
    crc = numcodecs.get_codec({"id": "crc32c", "location": "end"}).encode(np.frombuffer(index, np.uint8))
    put_chunk(path, bomb + bytes(crc))


def bomb_in_our_shard(path):
    part = listed(path)
    bomb = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(2**29))
    index = np.array([0, len(bomb)], "<u8").tobytes()
    crc = numcodecs.get_codec({"id": "crc32c", "location": "end"}).encode(np.frombuffer(index, np.uint8))
    next((part / "features").rglob("c/*/*")).write_bytes(bomb + bytes(crc))


def too_little_in_our_shard(path):
    part = listed(path)
    less = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(5))
    index = np.array([0, len(less)], "<u8").tobytes()
    crc = numcodecs.get_codec({"id": "crc32c", "location": "end"}).encode(np.frombuffer(index, np.uint8))
    next((part / "features").rglob("c/*/*")).write_bytes(less + bytes(crc))


def old_zlib_bomb(path):
    plain(path, zarr_format=2, compressors=numcodecs.Zlib())
    (path / "features" / "0.0").write_bytes(b"\x78\x01" + gzip_of_half_a_gigabyte()[10:-8])


def old_lz4_bomb(path):
    plain(path, zarr_format=2, compressors=numcodecs.LZ4())
    (path / "features" / "0.0").write_bytes((2**31 - 1).to_bytes(4, "little") + bytes(50))


def old_bz2(path):
    plain(path, zarr_format=2, compressors=numcodecs.BZ2())


class Harm:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (f"{self.path}-was-executed",)


def pickled_objects(path):
    plain(path, zarr_format=2)
    edit(
        path / "features" / ".zarray",
        lambda record: record.update(dtype="|O", filters=[{"id": "pickle", "protocol": 5}], compressor=None),
    )
    (path / "features" / "0.0").write_bytes(pickle.dumps(Harm(path)))


def pickled_numbers(path):
    plain(path, zarr_format=2)
    edit(
        path / "features" / ".zarray",
        lambda record: record.update(filters=[{"id": "pickle", "protocol": 5}], compressor=None),
    )
    (path / "features" / "0.0").write_bytes(pickle.dumps(Harm(path)))


def pickling_compressor(path):
    plain(path, zarr_format=2)
    edit(path / "features" / ".zarray", lambda record: record.update(compressor={"id": "pickle", "protocol": 5}))
    (path / "features" / "0.0").write_bytes(pickle.dumps(Harm(path)))


def unknown_codec(path):
    plain(path)
    edit(path / "features" / "zarr.json", lambda record: record["codecs"].append({"name": "os.system"}))


def codecs_of_numbers(path):
    plain(path)
    edit(path / "features" / "zarr.json", lambda record: record.update(codecs=[1, 2]))


def bomb_of_texts(path):
    plain(path)
    keys = zarr.open_group(path).create_array("keys", shape=(ROWS,), dtype=str, chunks=(ROWS,), compressors=None)
    keys[:] = np.array(["a"] * ROWS, dtype=object)
    (path / "keys" / "c" / "0").write_bytes((2**32 - 1).to_bytes(4, "little") + b"\x01\x00\x00\x00a" * ROWS)


def link_to_a_part(path):
    part = listed(path)
    part.rename(path.with_suffix(".elsewhere"))
    part.symlink_to(path.with_suffix(".elsewhere"))


def link_to_an_array(path):
    part = listed(path)
    (part / "features").rename(path.with_suffix(".elsewhere"))
    (part / "features").symlink_to(path.with_suffix(".elsewhere"))


def link_to_a_chunk(path):
    plain(path)
    chunk = path / "features" / "c" / "0" / "0"
    chunk.unlink()
    chunk.symlink_to("/etc/hostname")


def link_to_a_device(path):
    plain(path)
    chunk = path / "features" / "c" / "0" / "0"
    chunk.unlink()
    chunk.symlink_to("/dev/zero")


def link_to_metadata(path):
    listed(path)
    (path / "zarr.json").rename(path.with_suffix(".json"))
    (path / "zarr.json").symlink_to(path.with_suffix(".json"))


def pipe_for_a_chunk(path):
    plain(path)
    chunk = path / "features" / "c" / "0" / "0"
    chunk.unlink()
    os.mkfifo(chunk)


def pipe_for_metadata(path):
    plain(path)
    (path / "features" / "zarr.json").unlink()
    os.mkfifo(path / "features" / "zarr.json")


ATTACKS = {
    many_rows: "claims 549755813888 chunks",
    many_rows_in_large_chunks: "only .* are stored",
    wide_rows: r"claims 4\.4e\+12 bytes a row",
    wide_rows_in_small_chunks: r"claims 1\.07e\+09 bytes a row",
    large_chunks: "at most 536870912 are decoded at once",
    large_shards: "chunks in a shard",
    many_dimensions: "cannot be",
    negative_shape: "cannot be",
    zero_chunks: "cannot be",
    shape_of_texts: "cannot be read",
    manifest_of_many_rows: "metadata is not credible",
    manifest_of_large_chunks: "claims chunks of",
    manifest_of_wide_rows: "bytes a row",
    manifest_of_wide_texts: "bytes a row",
    manifest_of_objects: "dtype 'object'",
    manifest_of_no_dtype: "dtype",
    manifest_of_negative_sides: "bytes a row",
    manifest_of_millions_of_errors: "broken",
    manifest_of_a_list: "must be a mapping",
    attributes_of_a_list: "cannot be read|no manifest",
    deep_manifest: "cannot be read",
    deep_array: "cannot be read|dimension",
    huge_manifest: "68,719,476,736 bytes; such metadata",
    huge_metadata: "68,719,476,736 bytes; such metadata",
    huge_chunk_file: "68,719,476,736 bytes",
    huge_shard_file: "68,719,476,736 bytes",
    zstd_bomb: r"decompresses to 1073741824 \(zstd\)",
    zstd_bomb_of_no_size: "zstd|Zstd",
    zstd_that_claims_much: "decompresses to 4611686018427387904",
    gzip_bomb: r"decompresses to more \(gzip\)",
    gzip_bomb_in_members: r"decompresses to more \(gzip\)",
    blosc_bomb: r"decompresses to 536870912 \(blosc\)",
    bomb_in_a_shard: r"decompresses to more \(gzip\)",
    bomb_in_our_shard: r"decompresses to 536870912 \(zstd\)",
    too_little_in_our_shard: r"decompresses to 5 \(zstd\)",
    old_zlib_bomb: r"decompresses to more \(zlib\)",
    old_lz4_bomb: r"decompresses to 2147483647 \(lz4\)",
    old_bz2: "codec 'bz2' is not among",
    pickled_objects: "pickle|cannot be",
    pickled_numbers: "pickle",
    pickling_compressor: "pickle",
    unknown_codec: "cannot be",
    codecs_of_numbers: "cannot be",
    bomb_of_texts: "another number of texts",
    link_to_a_part: "symbolic link",
    link_to_an_array: "symbolic link",
    link_to_a_chunk: "symbolic link",
    link_to_a_device: "symbolic link",
    link_to_metadata: "symbolic link",
    pipe_for_a_chunk: "neither a file nor a directory",
    pipe_for_metadata: "neither a file nor a directory",
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """What reading each of them came to, in one process of limited memory: texts and seconds by name."""
    folder = tmp_path_factory.mktemp("hostile")
    for attack in ATTACKS:
        attack(folder / attack.__name__)
    paths = [str(folder / attack.__name__) for attack in ATTACKS]
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder), *paths], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found, peak = json.loads(done.stdout)
    assert peak < 900 << 10, f"{peak} KiB"
    assert not list(folder.glob("*-was-executed"))
    return {path.rsplit("/", 1)[1]: result for path, result in found.items()}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_is_refused_in_bounded_memory(refusals, attack):
    message, seconds, _ = refusals[attack.__name__]
    with pytest.raises(DataError, match=ATTACKS[attack]):
        raise DataError(message)
    assert attack.__name__ in message, "the path is named"
    assert len(message) < 3000
    assert seconds < 20


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc", "a/../../b", "http://host/x", "s3://bucket", "a\0b", "..", ".", "", "a" * 100_000, "a\nb", 3],
)
def test_names_of_parts_lead_nowhere_else(tmp_path, name):
    listed(tmp_path / "d.zarr")
    manifest(tmp_path / "d.zarr", examples=ROWS, parts=[{"name": name, "examples": ROWS}])
    with pytest.raises(DataError, match=r"d\.zarr is broken"):
        open_dataset(tmp_path / "d.zarr")


def test_a_link_to_a_dataset_is_fine(tmp_path):
    listed(tmp_path / "d.zarr")
    plain(tmp_path / "p.zarr")
    for name in ("d.zarr", "p.zarr"):
        (tmp_path / f"link-{name}").symlink_to(tmp_path / name)
        source = open_dataset(tmp_path / f"link-{name}")
        assert len(source.read(source.blocks()[0])["features"]) == ROWS


@pytest.mark.parametrize("attack", [zstd_bomb, link_to_a_chunk, wide_rows, pickled_numbers], ids=lambda a: a.__name__)
def test_validate_says_so_too(tmp_path, attack):
    folder = tmp_path / "d.zarr"
    attack(folder / "part-0")
    root = zarr.open_group(folder, mode="a")
    root.attrs["strombus"] = {"version": 1, "kind": "DataSet", "parts": [{"name": "part-0", "examples": ROWS}]}
    report = validate_dataset(folder, lambda expected, parts: [check_part(expected, part) for part in parts])
    expected = Expected(str(folder), {}, {"features": (0, 0)})
    found = check_part(expected, sb.data.manifest.Part("part-0", ROWS))
    assert [problem.kind for problem in found] == ["corrupt"], (report, found)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compressors": None},
        {"chunks": (3, 2)},
        {"shards": (4, 3)},
        {"gzip": True},
        {"blosc": True},
        {"zstd_of_no_size": True},
    ],
    ids=lambda options: next(iter(options), "plain"),
)
def test_what_others_write_is_read(tmp_path, zarr_format, options):
    options = dict(options)
    old = zarr_format == 2
    if options.pop("gzip", False):
        options["compressors"] = numcodecs.GZip() if old else zarr.codecs.GzipCodec()
    if options.pop("blosc", False):
        options["compressors"] = numcodecs.Blosc() if old else zarr.codecs.BloscCodec()
    if old and "shards" in options:
        pytest.skip("Zarr v2 has no shards")
    if streamed := options.pop("zstd_of_no_size", False):
        options["compressors"] = numcodecs.Zstd() if old else zarr.codecs.ZstdCodec()
    plain(tmp_path / "p.zarr", zarr_format=zarr_format, **options)
    values = np.arange(3 * ROWS, dtype="float32").reshape(ROWS, 3)
    if streamed:
        stream = zstandard.ZstdCompressor().compressobj()
        chunk = stream.compress(values[:2].tobytes()) + stream.flush()
        (tmp_path / "p.zarr" / "features" / ("0.0" if old else "c/0/0")).write_bytes(chunk)
    source = open_dataset(tmp_path / "p.zarr")
    assert (source.read(source.blocks()[0])["features"] == values).all()
