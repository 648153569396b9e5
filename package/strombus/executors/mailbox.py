"""Messages between a gang and its driver as files in a directory that all of them reach.

For engines whose workers cannot dial the driver, such as a Spark Connect server that is far from its client. A
batch of messages is one file, ``up/<member>/<number>`` or ``down/<member>/<number>``, written whole under another
name and then renamed; who has read it removes it. A file holds a JSON list of headers and raw bytes; nothing in it
is pickled. Who can write to the directory can speak for a member: its permissions guard the gang.
"""

from __future__ import annotations

import json
import logging
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from strombus.executors.board import Board
from strombus.executors.board_pump import BoardPump
from strombus.executors.members import LinkedMember, MemberPump, Message, Ticket
from strombus.files import open_storage

__all__ = ["MailboxServer", "MailboxTicket"]

logger = logging.getLogger(__name__)

IDLE = 0.25
"""Seconds between two looks: each is a listing of the directory."""


@dataclass(frozen=True)
class MailboxTicket(Ticket):
    """A `Ticket` with the gang's directory."""

    uri: str

    def member(self) -> MemberPump:
        """Return what joins the gang when it is entered."""
        member = LinkedMember(self)
        return MemberPump(member, lambda: _MemberBox(self.uri, member.address), IDLE)


class MailboxServer:
    """The driver's end; a context manager, which removes the gang's files at its end.

    Parameters
    ----------
    size, run_id, attempt, timeout
        As in `RendezvousServer`.
    directory : str
        Path or URI of a directory that driver and members reach.

    Attributes
    ----------
    board : Board
    """

    def __init__(self, size: int, run_id: str, attempt: int, timeout: float, directory: str) -> None:
        self.board = Board(size, run_id, attempt, timeout)
        self.uri = posixpath.join(directory, f"gang-{run_id}-{attempt}")
        self._pump = BoardPump(self.board, lambda: _BoardBox(self.uri), IDLE)

    def __enter__(self) -> Self:
        self._pump.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pump.__exit__()

    def ticket(self, rank: int) -> MailboxTicket:
        """Return what member `rank` needs to come."""
        return MailboxTicket(**vars(self.board.ticket(rank)), uri=self.uri)


class _Box:
    """One direction of one member: files that are numbered from zero."""

    def __init__(self, uri: str) -> None:
        self._files, self._root = open_storage(uri)

    def write(self, name: str, number: int, messages: Sequence[Message]) -> None:
        headers = json.dumps([[header, len(payload)] for header, payload in messages]).encode()
        folder = posixpath.join(self._root, name)
        self._files.makedirs(folder, exist_ok=True)
        path = posixpath.join(folder, f"{number:08d}")
        with self._files.open(f"{path}.part", "wb") as file:
            file.write(len(headers).to_bytes(4, "little") + headers + b"".join(payload for _, payload in messages))
        self._files.mv(f"{path}.part", path)

    def read(self, name: str) -> Iterator[Message]:
        """Yield the messages in a folder, in order, and remove them."""
        folder = posixpath.join(self._root, name)
        self._files.invalidate_cache()
        try:
            names = sorted(posixpath.basename(path) for path in self._files.ls(folder, detail=False))
        except FileNotFoundError:
            return
        for one in names:
            if one.isdigit():
                path = posixpath.join(folder, one)
                data = self._files.cat_file(path)
                self._files.rm_file(path)
                yield from _decode(data)

    def names(self, name: str) -> list[str]:
        self._files.invalidate_cache()
        with suppress(FileNotFoundError):
            return [posixpath.basename(path) for path in self._files.ls(posixpath.join(self._root, name), detail=False)]
        return []

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self._files.rm(self._root, recursive=True)


class _BoardBox:
    """All members' boxes, as the board's channel."""

    def __init__(self, uri: str) -> None:
        self._box = _Box(uri)
        self._sent: Counter[str] = Counter()

    def send(self, messages: Mapping[str, list[Message]]) -> None:
        for address, mail in messages.items():
            self._box.write(f"down/{address}", self._sent[address], mail)
            self._sent[address] += 1

    def receive(self) -> Iterator[tuple[str, Message]]:
        for address in self._box.names("up"):
            for message in self._box.read(f"up/{address}"):
                yield address, message

    def close(self) -> None:
        self._box.remove()


class _MemberBox:
    """One member's box, as its channel."""

    def __init__(self, uri: str, address: str) -> None:
        self._box, self._address, self._sent = _Box(uri), address, 0

    def send(self, messages: list[Message]) -> None:
        self._box.write(f"up/{self._address}", self._sent, messages)
        self._sent += 1

    def receive(self) -> list[Message]:
        return list(self._box.read(f"down/{self._address}"))

    def close(self) -> None:
        pass


def _decode(data: bytes) -> list[Message]:
    """Read a file's messages; none from what is damaged."""
    found: list[Message] = []
    try:
        start = 4 + int.from_bytes(data[:4], "little")
        for header, size in json.loads(data[4:start]):
            if not _is_header(header) or start + size > len(data):
                raise ValueError("no message")
            found.append((header, data[start : start + size]))
            start += size
    except (ValueError, TypeError):
        logger.warning("dropped a file of %d bytes that holds no messages", len(data))
        return []
    return found


def _is_header(header: Any) -> bool:
    return isinstance(header, dict) and isinstance(header.get("kind"), str)
