"""Java's ``DataInputStream`` over bytes or a file: big-endian numbers and texts, with a place for every error."""

from __future__ import annotations

import struct
import sys
from io import BufferedReader
from typing import IO, Any

import numpy as np

from strombus.errors import DataError

__all__ = ["Input", "text"]

_SWAP = sys.byteorder == "little"
_NUMBERS = {kind: struct.Struct(f">{kind}") for kind in "bBHiqfd"}


class Input:
    """A reader that knows where it is and how much is left, so that no length in a file is believed.

    Parameters
    ----------
    source : bytes-like or binary file
        Bytes are not copied. A file is read from where it stands.
    name : str
        What errors call it.
    size : int, optional
        Bytes from here to the end; needed for a file that cannot seek.

    Attributes
    ----------
    name : str
    offset : int
        Bytes read so far.
    """

    def __init__(self, source: Any, name: str = "the data", size: int | None = None) -> None:
        self.name = name
        self.offset = 0
        self._file: IO[bytes] | None = source if hasattr(source, "readinto") else None
        self._bytes = memoryview(b"") if self._file is not None else memoryview(source).cast("B")
        self._size = (_rest(source) if self._file is not None else len(self._bytes)) if size is None else size

    @property
    def remaining(self) -> int:
        """Bytes that are left."""
        return self._size - self.offset

    def fail(self, reason: str, offset: int | None = None) -> DataError:
        """Return the error to raise: name, byte and reason."""
        return DataError(f"{self.name}, byte {self.offset if offset is None else offset:,}: {reason}")

    def take(self, length: int, what: str) -> Any:
        """Return the next bytes; a view where the source is bytes.

        Raises
        ------
        DataError
            When fewer are left.
        """
        if length > self._size - self.offset:
            self.need(length, what)
        if self._file is None:
            taken: Any = self._bytes[self.offset : self.offset + length]
        else:
            taken = self._file.read(length)
            if len(taken) < length:
                raise self.fail(f"the file ends within {what}, though its size promised more")
        self.offset += length
        return taken

    def peek(self, length: int) -> bytes:
        """Return up to `length` of the next bytes, which stay; none where the source cannot show them."""
        if self._file is None:
            return bytes(self._bytes[self.offset : self.offset + length])
        return self._file.peek(length)[:length] if isinstance(self._file, BufferedReader) else b""

    def need(self, length: int, what: str) -> None:
        """Raise a `DataError` when fewer than `length` bytes are left."""
        if length > self.remaining:
            raise self.fail(
                f"{what} needs {length:,} bytes, {max(self.remaining, 0):,} are left: the file is cut short"
            )

    def array(self, dtype: Any, count: int, what: str, out: Any = None) -> Any:
        """Return the next `count` numbers in this machine's byte order.

        Single bytes of a bytes-like source are a read-only view; everything else is one copy, swapped. `out` is a flat
        array of this dtype and length to put them into.
        """
        wanted = np.dtype(dtype).newbyteorder("=")
        self.need(count * wanted.itemsize, what)
        if self._file is not None:
            found = np.empty(count, wanted) if out is None else out
            self._fill(found.view(np.uint8).data, what)
            return found.byteswap(inplace=True) if _SWAP and wanted.itemsize > 1 else found
        stored = np.frombuffer(self.take(count * wanted.itemsize, what), wanted.newbyteorder(">"))
        if out is not None:
            out[...] = stored
            return out
        return stored if wanted.itemsize == 1 else stored.astype(wanted)

    def _fill(self, place: memoryview, what: str) -> None:
        filled = 0
        while filled < len(place):
            got = self._file.readinto(place[filled:])  # type: ignore[union-attr]
            if not got:
                raise self.fail(f"the file ends within {what}, though its size promised more", self.offset + filled)
            filled += got
        self.offset += filled

    def skip(self, length: int, what: str) -> None:
        """Pass over bytes without reading them where the source can seek."""
        self.need(length, what)
        if self._file is not None and self._file.seekable():
            self._file.seek(length, 1)
            self.offset += length
        elif self._file is None:
            self.offset += length
        else:
            while length:
                length -= len(self.take(min(length, 1 << 20), what))

    def seek(self, offset: int) -> None:
        """Go to a byte, counted from where the source was taken over; a file must be able to seek."""
        if self._file is not None:
            self._file.seek(offset - self.offset, 1)
        self.offset = offset

    def unpack(self, kind: str, what: str) -> Any:
        """Return one number; `kind` is a letter of `struct`: b, B, H, i, q, f, d."""
        number = _NUMBERS[kind]
        return number.unpack(self.take(number.size, what))[0]

    def text(self, what: str, most: int = 64) -> str:
        """Return a text as ``DataInputStream.readUTF`` does; only ASCII of up to `most` bytes, as names are.

        Raises
        ------
        DataError
            When it is longer, or has other characters.
        """
        start = self.offset
        length = self.unpack("H", what)
        if length > most:
            raise self.fail(f"{what} claims {length:,} bytes, at most {most} are credible", start)
        found = bytes(self.take(length, what))
        if not (found.isascii() and found.decode().isprintable()):
            raise self.fail(f"{what} must be a name in ASCII, got {found!r}", start)
        return found.decode()


def text(value: str) -> bytes:
    """Return what ``DataOutputStream.writeUTF`` writes for an ASCII text."""
    return struct.pack(">H", len(value)) + value.encode("ascii")


def _rest(file: IO[bytes]) -> int:
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return end - here
