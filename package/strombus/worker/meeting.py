"""How the members of a gang come to have a transport between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from strombus.executors.base import Member
from strombus.transport import Keys, Seat, Transport, TransportOptions, make_transport

__all__ = ["connected"]


@contextmanager
def connected(
    member: Member, keys: Keys | None, transport: str | type[Transport], options: TransportOptions
) -> Iterator[Transport | None]:
    """Meet the other members; a gang of one needs no transport."""
    if member.size == 1:
        yield None
        return
    # An address by which the engine knows this worker is one that the others reach; a name may mean the loopback.
    towards = member.host if member.host.replace(".", "").isdigit() else None
    seat = Seat(member.rank, member.size, member.run_id, member.attempt, keys, towards)
    made = make_transport(transport, seat, options)
    made.stopping = member.stopping
    try:
        made.connect(member.exchange(made.address()))
        yield made
    except BaseException:
        made.close(flush=0.0)
        raise
    made.close()
