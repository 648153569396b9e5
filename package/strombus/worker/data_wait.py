"""How a member waits for its own data, which nobody else waits for where all do."""

from __future__ import annotations

import logging
import time

from strombus.errors import DataError
from strombus.types import Event
from strombus.worker.peers import Peers

__all__ = ["DataWait"]

_log = logging.getLogger(__name__)


class DataWait:
    """Tells the driver that a member has waited too long for its data, and ends the wait when all members have.

    Where others have theirs they wait for this one, and give it up.

    Parameters
    ----------
    peers : Peers
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._lost: int | None = None  # members, when this one said that it waits
        self._all_wait = False
        self.place = ""

    def look(self, seconds: float) -> None:
        """Do what is due in a wait that has taken so long; ExecutorError when the driver asks to stop."""
        self._peers.go_on("it waited for its data")
        if seconds < self._peers.patience:
            return
        if self._all_wait:
            raise DataError(
                f"all workers wait for their data, worker {self._peers.rank} for {seconds:.3g} s for {self.place}: "
                "does the stream, a read or a transform hang? raise `timeout` if it only needs longer"
            )
        if self._lost is None:
            _log.warning(
                "worker %d has waited %.3g s (option `timeout`) for its data, %s", self._peers.rank, seconds, self.place
            )
        if self._lost != len(self._peers.lost):
            self._lost = len(self._peers.lost)
            self._report("starved", lost=self._lost)

    def told(self) -> None:
        """Take the driver's word that all members wait."""
        self._all_wait = self._lost is not None

    def end(self) -> None:
        """Take note that the data has come."""
        if self._lost is not None:
            self._report("fed")
        self._lost, self._all_wait = None, False

    def _report(self, name: str, **values: int) -> None:
        self._peers.member.report(Event(name, self._peers.rank, time.time(), values=values))
