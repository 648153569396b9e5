"""The zip that DL4J's ``ModelSerializer`` writes, read within bounds: nothing is unpacked to a disk."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO

from strombus.documents import shorten
from strombus.errors import DataError

__all__ = ["COEFFICIENTS", "CONFIGURATION", "NORMALIZER", "UPDATER", "Archive"]

CONFIGURATION = "configuration.json"
COEFFICIENTS = "coefficients.bin"
UPDATER = "updaterState.bin"
NORMALIZER = "normalizer.bin"

_LONGEST = 16 << 20
"""Bytes of a configuration, or of an entry that is only kept."""

_MANY = 1000
_TRUSTED = 64 << 20
_RATIO = 100
"""Entries that become larger than `_TRUSTED` are not read when they shrank by more: no trained weights do."""


class Archive:
    """An open zip of a model.

    Parameters
    ----------
    file : binary file
        It can seek.
    name : str
        What errors call it.

    Raises
    ------
    DataError
        When it is no zip, is damaged, or has entries that DL4J does not write.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, struct.error) as error:
            raise DataError(f"{name} is no zip file as DL4J's ModelSerializer writes it: {error}") from error
        entries = self._zip.infolist()
        if len(entries) > _MANY:
            raise DataError(f"{name} has {len(entries):,} entries; a model has a handful")
        self._entries: Mapping[str, zipfile.ZipInfo] = {entry.filename: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise DataError(f"{name} has two entries of one name; save the model again with DL4J")
        for entry in entries:
            self._check(entry)

    def __contains__(self, entry: str) -> bool:
        return entry in self._entries

    def read(self, entry: str, most: int = _LONGEST) -> bytes:
        """Return an entry of at most `most` bytes.

        Raises
        ------
        DataError
            When it is missing, larger or damaged.
        """
        info = self._entries.get(entry)
        if info is None:
            known = ", ".join(shorten(name, 60) for name in list(self._entries)[:10]) or "nothing"
            raise DataError(f"{self.name} has no {entry}, so it is no model of DL4J; it has {known}")
        if info.file_size > most:
            raise DataError(f"{self.name}: {entry} would have {info.file_size:,} bytes, at most {most:,} fit the model")
        if info.file_size > _TRUSTED and info.file_size > _RATIO * info.compress_size:
            raise DataError(
                f"{self.name}: {entry} would grow from {info.compress_size:,} to {info.file_size:,} bytes, "
                "as no trained weights do; save the model again with DL4J"
            )
        try:
            with self._zip.open(info) as stream:
                found = stream.read(most + 1)
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            EOFError,
            NotImplementedError,
            RuntimeError,
            ValueError,
        ) as error:
            raise DataError(f"{self.name}: {entry} is damaged: {error}") from error
        if len(found) > most:
            raise DataError(f"{self.name}: {entry} has more than the {most:,} bytes that fit the model")
        if len(found) < info.file_size:
            raise DataError(f"{self.name}: {entry} is cut short: {len(found):,} of {info.file_size:,} bytes")
        return found

    def others(self) -> dict[str, bytes]:
        """Return what else there is, to be written back as it is."""
        known = (CONFIGURATION, COEFFICIENTS, UPDATER)
        names = [name for name in self._entries if name not in known]
        found: dict[str, bytes] = {}
        left = _LONGEST
        for name in names:
            found[name] = self.read(name, left)
            left -= len(found[name])
        return found

    def _check(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or not name.isprintable():
            raise DataError(
                f"{self.name} has an entry {shorten(name)}, which would lie outside of it; nothing was read"
            )
        if entry.flag_bits & 1:
            raise DataError(f"{self.name}: {shorten(name)} is encrypted; save the model again with DL4J")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{self.name}: {shorten(name)} is compressed in a way that DL4J does not use")
