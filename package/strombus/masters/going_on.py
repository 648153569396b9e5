"""What becomes of shared training whose members go on without one that is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from strombus.errors import MemberLost
from strombus.masters.job import Remainder
from strombus.transport import Transport, transports
from strombus.types import Cursor, NetworkState
from strombus.worker.carrying import Carried
from strombus.worker.guarding import OnNonfinite
from strombus.worker.regrouping import Departure, furthest, join_departures
from strombus.worker.sharing_work import MemberResult

__all__ = ["check_continue", "outcome"]


def check_continue(
    staleness: int | None, transport: str | type[Transport], topology: str, on_nonfinite: OnNonfinite
) -> None:
    """Raise ValueError where members cannot go on without one that is lost."""
    kind = transports[transport] if isinstance(transport, str) else transport
    if staleness == 0:
        raise ValueError(
            "on_peer_lost='continue' needs max_staleness of at least 1, or None: at 0 every step is everybody's, and a "
            "lost member ends it; on_peer_lost='restart' goes on from a checkpoint"
        )
    if on_nonfinite == "rollback":
        raise ValueError(
            "on_peer_lost='continue' does not go with on_nonfinite='rollback', which leaves out minibatches by how the "
            "rows were dealt when the checkpoint was written: take 'skip', or on_peer_lost='restart'"
        )
    if topology in ("tree", "star") or not kind.tolerates:
        raise ValueError(
            "on_peer_lost='continue' needs members that reach each other directly: wanted topology='mesh' or 'auto' of "
            f"the transport 'zeromq', got {topology!r} of {kind.name!r}; on_peer_lost='restart' goes with any"
        )


def outcome(
    results: Sequence[MemberResult | MemberLost], epoch: int, combine: Literal["mean", "sum"]
) -> tuple[NetworkState | None, Carried | None, Remainder | None]:
    """Return the network's state, what was not sent, and where another gang goes on, if that must be.

    Parameters
    ----------
    epoch : int
        The first that has not ended for the driver.

    Raises
    ------
    MemberLost
        When nobody is left who has the state.
    """
    lost = tuple(result for result in results if isinstance(result, MemberLost))
    there = [result for result in results if not isinstance(result, MemberLost)]
    for one in there:
        if one.state is not None and one.carried is not None:
            return one.state, one.carried, None
    departures = [one.departure for one in there if one.departure is not None]
    if not departures and lost:
        raise lost[0]
    if not departures:  # told to, they have left in order: the state is that of the last whole epoch, if there is one
        return next((one.state for one in there if one.state is not None), None), None, None
    state, carried = join_departures(departures, combine)
    return state, carried, _remainder(furthest(departures), epoch, lost)


def _remainder(last: Departure, epoch: int, lost: tuple[MemberLost, ...]) -> Remainder:
    """Return what is left after `last`; an epoch of which no row is left is still to be ended, unless it was."""
    if epoch > last.epoch:
        return Remainder(Cursor(epoch), 0, 0, lost)
    if not last.number:
        return Remainder(Cursor(epoch), 0, 0, lost)
    again = sum(stop - start for one in lost for start, stop in last.left[one.part or 0])
    everything = tuple(span for spans in last.left for span in spans)
    # All of it in one list, which is dealt anew whatever the number of members.
    cursor = Cursor(epoch, last.number, 0, (everything,))
    return Remainder(cursor, last.examples, last.minibatches, lost, again)
