"""What moves messages between a gang's board on the driver and its members."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from strombus.executors.board import Board
from strombus.executors.members import BEAT, LEASE, Message

__all__ = ["BoardChannel", "BoardPump"]

logger = logging.getLogger(__name__)


class BoardChannel(Protocol):
    """Carries messages between the driver and all members; used by one thread."""

    def send(self, messages: Mapping[str, list[Message]]) -> None: ...

    def receive(self) -> Iterable[tuple[str, Message]]:
        """Return what has come, each with its sender's address, without waiting."""

    def close(self) -> None: ...


class BoardPump:
    """A thread that moves messages between a `Board` and its channel; a context manager."""

    def __init__(self, board: Board, make_channel: Callable[[], BoardChannel], idle: float = 0.05) -> None:
        self._board = board
        self._make = make_channel
        self._idle = idle
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"strombus-board-{board.run_id}", daemon=True)

    def __enter__(self) -> BoardPump:
        self._channel = self._make()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(LEASE)

    def _run(self) -> None:
        last_beat = 0.0
        try:
            while True:
                ending = self._ended.wait(0.02 if self._board.waiting else self._idle)
                for address, message in self._channel.receive():
                    self._receive(address, message)
                beat = time.monotonic() - last_beat >= BEAT
                if beat:
                    last_beat = time.monotonic()
                self._channel.send(self._board.outgoing(beat))
                if ending:
                    return
        except Exception:
            logger.exception("the gang's connection to its members broke; they stop when their lease runs out")
        finally:
            self._channel.close()

    def _receive(self, address: str, message: Message) -> None:
        try:
            self._board.receive(address, message)
        except (KeyError, TypeError, ValueError):
            logger.warning("dropped a message that cannot be read: %r", message[0], exc_info=True)
