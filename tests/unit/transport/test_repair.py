"""Connections that are cut, and frames that do not come back: nothing is lost, or it is named."""

from __future__ import annotations

import json

import pytest

from strombus.errors import PeerLost, WireError
from strombus.testing.links import CuttingProxy
from strombus.testing.transport_suite import gang, in_threads, loss_seen_by, take
from strombus.transport import Seat, TransportOptions, make_keys, make_transport, topology
from strombus.transport.frames import HEADER_SIZE, Frame
from strombus.transport.links import Link
from strombus.transport.memory import MemoryTransport

OPTIONS = TransportOptions(host="127.0.0.1", connect_timeout=20, dead_after=10.0, send_timeout=10)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_connection_that_is_cut_again_and_again_loses_nothing(seed):
    steps, payload = 1000, bytes(30_000)
    ends, addresses, proxy = behind_a_proxy()

    def talk(end):
        mine = []
        for step in range(steps):
            end.send(1, step, payload)
            if step % 10 == 0:  # in between there is much under way
                mine += end.receive()
        mine += take(end, steps - len(mine))
        return mine + take(end, 1, 1.0)  # none comes twice, and the other may need something again

    try:
        in_threads(ends, lambda end: end.connect(addresses))
        with proxy.cutting(seed, (0.02, 0.1)) as moments:
            heard = in_threads(ends, talk)
        assert len(moments) >= 2
        for messages in heard:
            assert [message.step for message in messages] == list(range(steps))
        sent = sum(end.figures.bytes_sent for end in ends)
        assert sent > 2 * steps * (len(payload) + HEADER_SIZE) + len(payload)  # something did go twice
    finally:
        in_threads(ends, lambda end: end.close(flush=1.0))
        proxy.close()


def behind_a_proxy(size=2, rank=0, **changes):
    """Return the ends of a gang, their addresses, and the proxy through which others dial `rank`."""
    keys, options = make_keys(), OPTIONS.model_copy(update=changes)
    ends = [make_transport("zeromq", Seat(one, size, "run", 0, keys), options) for one in range(size)]
    addresses = [end.address() for end in ends]
    proxy = CuttingProxy(*json.loads(addresses[rank]))
    addresses[rank] = json.dumps(["127.0.0.1", proxy.port]).encode()
    return ends, addresses, proxy


def test_a_connection_that_is_not_made_again_is_a_loss():
    ends, addresses, proxy = behind_a_proxy(dead_after=0.5)
    in_threads(ends, lambda end: end.connect(addresses))
    proxy.close()

    def lose(end):
        with pytest.raises(PeerLost, match=r"was lost.*0\.5 s \(option `dead_after`\)") as caught:
            take(end, 1, 10.0)
        end.close(flush=0.0)
        return caught.value.rank

    assert in_threads(ends, lose) == [1, 0]


def test_a_connection_made_again_while_a_member_computes_is_no_loss():
    """Who dialled says hello only after its step; that the connection stands again shows before."""
    ends, addresses, proxy = behind_a_proxy(dead_after=0.5)
    in_threads(ends, lambda end: end.connect(addresses))
    try:
        for step in range(2):
            assert proxy.cut()
            assert take(ends[0], 1, 1.5) == []  # three times `dead_after`, in which member 1 calls nothing
            in_threads(ends, lambda end, step=step: end.send(1, step, b"after the cut"))
            heard = in_threads(ends, lambda end: take(end, 1, 10.0) + take(end, 1, 0.5))  # the other may need it still
            assert [[message.step for message in messages] for messages in heard] == [[step], [step]]
        assert proxy.cut()
        assert take(ends[0], 1, 1.0) == []
        proxy.close()  # for good, before it has said hello
        with pytest.raises(PeerLost, match="member 1 was lost"):
            take(ends[0], 1, 10.0)
    finally:
        in_threads(ends, lambda end: end.close(flush=0.0))
        proxy.close()


@pytest.fixture
def narrow(monkeypatch):
    """Trees in which 1 and 2 are below 0, 3 and 4 below 1."""
    monkeypatch.setattr(topology, "ARITY", 2)
    return {"size": 5, "rank": 1, "topology": "tree"}


def test_connections_cut_below_a_relay_lose_nothing(narrow):
    steps, payload = 120, bytes(10_000)
    ends, addresses, proxy = behind_a_proxy(**narrow)

    def talk(end):
        mine = []
        for step in range(steps):
            end.send(1, step, payload)
            mine += end.receive(0.003)
        wanted = 4 * steps
        return mine + take(end, wanted - len(mine)) + take(end, 1, 1.0)  # the others may need something again

    try:
        in_threads(ends, lambda end: end.connect(addresses))
        with proxy.cutting(1, (0.02, 0.1)) as moments:
            heard = in_threads(ends, talk)
        assert len(moments) >= 2
        for end, messages in zip(ends, heard, strict=True):
            for origin in set(range(5)) - {end.seat.rank}:
                assert [one.step for one in messages if one.origin == origin] == list(range(steps))
    finally:
        in_threads(ends, lambda end: end.close(flush=1.0))
        proxy.close()


def test_a_connection_below_a_relay_that_is_not_made_again_is_named_everywhere(narrow):
    ends, addresses, proxy = behind_a_proxy(dead_after=0.5, **narrow)
    in_threads(ends, lambda end: end.connect(addresses))
    proxy.close()

    def lose(end):
        who, seconds = loss_seen_by(end)
        end.close(flush=0.0)
        return who, seconds

    seen = in_threads(ends, lose)
    assert max(seconds for _, seconds in seen) < 5
    ranks = [who for who, _ in seen]
    assert ranks[3:] == [1, 1]
    assert ranks[1] in (3, 4)
    assert ranks[0] == ranks[2] == ranks[1]  # whom the relay has lost


def test_a_frame_that_never_comes_again_is_named():
    options = OPTIONS.model_copy(update={"send_timeout": 0.3})
    with gang(MemoryTransport, 2, options) as ends:
        link = ends[0]._switch.links[1]
        ends[0].send(1, 0, b"kept")
        assert [message.step for message in take(ends[1], 1)] == [0]
        link.window.clear()
        link.first = link.cursor = link.sent = 3  # as if 1 and 2 had been sent, and forgotten
        ends[0].send(1, 1, b"later")
        with pytest.raises(PeerLost, match=r"frame 1 of member 0 was lost.*`queue` and `window`"):
            take(ends[1], 1, 10.0)


def test_a_link_gives_out_each_frame_once_and_in_order():
    link = Link(1, False, frames=4, volume=1000)
    frames = [Frame(1, 1, step, b"x", number=step) for step in range(5)]
    assert link.in_order(frames[1]) == []
    assert link.gap
    assert link.in_order(frames[2]) == []
    assert link.in_order(frames[0]) == frames[:3]
    assert not link.gap
    assert link.in_order(frames[1]) == []
    assert link.in_order(frames[3]) == frames[3:4]


def test_a_link_keeps_what_was_not_acknowledged_and_no_more():
    link = Link(1, False, frames=3, volume=100)
    assert link.has_room(1000)  # alone
    for number in range(3):
        assert link.has_room(30)
        link.add(bytes([number]) * 30)
        link.cursor += 1
    assert not link.has_room(1)
    link.rewind(1)
    assert link.next_frame() == b"\1" * 30
    link.acknowledge(2)
    assert (link.first, link.cursor, len(link.window)) == (2, 2, 1)
    link.rewind(0)  # asked before that
    assert link.next_frame() == b"\2" * 30
    assert not link.has_room(80)
    for call in (link.acknowledge, link.rewind):
        with pytest.raises(WireError, match="frame"):
            call(5)
