"""Decoders that stop at the size that an array's metadata gives: what a chunk says of itself is not trusted.

A few kilobytes of zstd, gzip or blosc can stand for gigabytes. Zarr's own decoders take the size from the compressed
bytes, or go on until these end.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numcodecs
import numpy as np
from numcodecs.abc import Codec as NumCodec
from zarr import AsyncArray
from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    VLenUTF8Codec,
    ZstdCodec,
)
from zarr.core.array import Array

from strombus.errors import DataError

__all__ = ["bounded", "decode_zstd", "is_zstd"]

TEXT_BYTES = 64 << 20
"""Most bytes of a chunk of texts, whose size no metadata tells."""

# Of Zarr v2: these keep the number of bytes, or widen each value by a few.
_FILTERS = frozenset({"astype", "bitround", "delta", "fixedscaleoffset", "packbits", "quantize", "shuffle"})


def bounded(array: Any) -> Any:
    """Return a `zarr.Array` whose chunks are decoded in bounded memory.

    Raises
    ------
    DataError
        When it has codecs that are not known to be safe (pickle is one of Zarr v2's); lists those that are.
    """
    metadata = copy.copy(array.metadata)
    if metadata.zarr_format == 2:
        for one in metadata.filters or ():
            if one.codec_id not in _FILTERS:
                raise _unknown(one.codec_id)
        # A filter may have widened the values before they were compressed.
        most = int(np.dtype(array.dtype).itemsize * prod(array.chunks)) * (16 if metadata.filters else 1)
        compressor = None if metadata.compressor is None else _BoundedCompressor(metadata.compressor, most)
        object.__setattr__(metadata, "compressor", compressor)
    else:
        object.__setattr__(metadata, "codecs", tuple(map(_bounded, metadata.codecs)))
    return Array(AsyncArray(metadata=metadata, store_path=array.store_path))


def _bounded(codec: Any) -> Any:
    if isinstance(codec, ShardingCodec):
        if any(not isinstance(one, BytesCodec | Crc32cCodec) for one in codec.index_codecs):
            raise DataError("the index of its shards is encoded otherwise than with bytes and crc32c")
        return ShardingCodec(
            chunk_shape=codec.chunk_shape,
            codecs=tuple(map(_bounded, codec.codecs)),
            index_codecs=codec.index_codecs,
            index_location=codec.index_location,
        )
    if isinstance(codec, BytesCodec | Crc32cCodec | TransposeCodec):
        return codec
    if isinstance(codec, VLenUTF8Codec):
        return _BoundedTexts(codec)
    if type(codec) in _NAMES:
        return _BoundedBytes(codec)
    raise _unknown(str(getattr(codec, "codec_name", None) or codec.to_dict().get("name")))


def _unknown(name: str) -> DataError:
    return DataError(
        f"its codec {name!r} is not among those that are read (zstd, gzip, blosc, crc32c, transpose, sharding_indexed; "
        f"of Zarr v2 zlib and lz4 too): write it with one of them"
    )


def is_zstd(codec: Any) -> bool:
    """Say whether a codec, bounded or not, is zstd with a checksum of its own."""
    plain = codec.codec if isinstance(codec, _BoundedBytes) else codec
    return isinstance(plain, ZstdCodec) and plain.checksum


@dataclass(frozen=True)
class _BoundedBytes(BytesBytesCodec):
    codec: Any
    is_fixed_size = False

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        item = chunk_spec.dtype.to_native_dtype()
        most = TEXT_BYTES if item.hasobject or item.kind == "T" else item.itemsize * prod(chunk_spec.shape)
        found = _DECODERS[_NAMES[type(self.codec)]](chunk_bytes.to_bytes(), most)
        return chunk_spec.prototype.buffer.from_bytes(found)

    def evolve_from_array_spec(self, array_spec: Any) -> _BoundedBytes:
        return replace(self, codec=self.codec.evolve_from_array_spec(array_spec))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        return int(self.codec.compute_encoded_size(input_byte_length, chunk_spec))

    def to_dict(self) -> dict[str, Any]:
        return dict(self.codec.to_dict())


@dataclass(frozen=True)
class _BoundedTexts(ArrayBytesCodec):
    codec: VLenUTF8Codec
    is_fixed_size = False

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        # The decoder makes room for as many texts as the first bytes say.
        if int.from_bytes(chunk_bytes.to_bytes()[:4], "little") != prod(chunk_spec.shape):
            raise RuntimeError("a chunk has another number of texts than the metadata says")
        return await self.codec._decode_single(chunk_bytes, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        return int(self.codec.compute_encoded_size(input_byte_length, chunk_spec))

    def to_dict(self) -> dict[str, Any]:
        return dict(self.codec.to_dict())


class _BoundedCompressor(NumCodec):  # type: ignore[misc]
    """The compressor of a Zarr v2 array."""

    def __init__(self, codec: Any, most: int) -> None:
        if codec.codec_id not in _DECODERS:
            raise _unknown(codec.codec_id)
        self.codec_id, self._most = codec.codec_id, most

    def decode(self, buf: Any, out: Any = None) -> Any:
        return _DECODERS[self.codec_id](bytes(buf), self._most)

    def encode(self, buf: Any) -> Any:
        raise NotImplementedError("this array is only read")


def _refuse(kind: str, size: int | str, most: int) -> RuntimeError:
    return RuntimeError(
        f"a chunk of {most} bytes decompresses to {size} ({kind}); it is damaged, or made to fill memory"
    )


def decode_zstd(data: Any, out: Any) -> None:
    """Decompress to an array of the exact size; RuntimeError, as of numcodecs, when the frame holds less or more."""
    size = _zstd_size(data)
    if size is not None and size != out.nbytes:
        raise _refuse("zstd", size, out.nbytes)
    numcodecs.Zstd().decode(data, out)


def _zstd_size(data: Any) -> int | None:
    """Return the size of what a zstd frame holds, as its header says (RFC 8878, 3.1.1.1); None where it does not."""
    head = bytes(data[:18])
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        raise RuntimeError("a chunk is no zstd frame")
    flags = head[4]
    single = bool(flags & 0x20)
    start = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    length = (1 if single else 0, 2, 4, 8)[flags >> 6]
    if not length:
        return None
    return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)


def _zstd(data: bytes, most: int) -> Any:
    size = _zstd_size(data)
    if size is not None and size <= most:
        return numcodecs.Zstd().decode(data)
    if size is not None:
        raise _refuse("zstd", size, most)
    # Its size is not known: then it must be the chunk itself, and not another codec's.
    out = np.empty(most, np.uint8)
    numcodecs.Zstd().decode(data, out)
    return out.data


def _blosc(data: bytes, most: int) -> Any:
    size = int.from_bytes(data[4:8], "little")
    if len(data) < 16 or size > most:
        raise _refuse("blosc", size, most)
    return numcodecs.Blosc().decode(data)


def _lz4(data: bytes, most: int) -> Any:
    size = int.from_bytes(data[:4], "little")
    if size > most:
        raise _refuse("lz4", size, most)
    return numcodecs.LZ4().decode(data)


def _inflate(kind: str, bits: int, data: bytes, most: int) -> bytes:
    found = b""
    while data:  # gzip allows several members one after the other
        stream = zlib.decompressobj(bits)
        found += stream.decompress(data, most + 1 - len(found))
        if len(found) > most:
            raise _refuse(kind, "more", most)
        if not stream.eof:
            raise RuntimeError(f"a chunk is cut short ({kind})")
        data = stream.unused_data
    return found


def _gzip(data: bytes, most: int) -> bytes:
    return _inflate("gzip", 31, data, most)


def _zlib(data: bytes, most: int) -> bytes:
    return _inflate("zlib", 15, data, most)


_NAMES: dict[Any, str] = {ZstdCodec: "zstd", GzipCodec: "gzip", BloscCodec: "blosc"}
_DECODERS: dict[str, Callable[[bytes, int], Any]] = {
    "zstd": _zstd,
    "gzip": _gzip,
    "zlib": _zlib,
    "blosc": _blosc,
    "lz4": _lz4,
}
