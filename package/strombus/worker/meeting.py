"""How the members of a gang come to have a transport between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from strombus.executors.base import Executor, Member
from strombus.transport import Hub, Keys, Seat, Transport, TransportOptions, find_hub, make_transport, open_hub

__all__ = ["connected", "hub_beside"]


def hub_beside(
    executor: Executor, size: int, keys: Keys | None, transport: str | type[Transport], options: TransportOptions
) -> AbstractContextManager[Hub | None]:
    """Run, on the driver, the hub of a star of `size` members, where the options want it there."""
    return open_hub(partial(make_transport, transport), options, size, keys, lambda: executor.capacity().hosts)


@contextmanager
def connected(
    member: Member,
    keys: Keys | None,
    transport: str | type[Transport],
    options: TransportOptions,
    hub: Hub | None = None,
) -> Iterator[Transport | None]:
    """Meet the other members, at `hub` where the driver runs one; a gang of one needs no transport."""
    if member.size == 1:
        yield None
        return
    # An address by which the engine knows this worker is one that the others reach; a name may mean the loopback.
    towards = (member.host,) if member.host.replace(".", "").isdigit() else ()
    seat = Seat(member.rank, member.size, member.run_id, member.attempt, keys, towards)
    seat, options = find_hub(seat, options, hub, member.host, member.exchange)
    made = make_transport(transport, seat, options)
    made.stopping = member.stopping
    try:
        made.connect([*member.exchange(made.address()), *([] if hub is None else [hub.address])])
        yield made
    except BaseException:
        made.close(flush=0.0)
        raise
    made.close()
