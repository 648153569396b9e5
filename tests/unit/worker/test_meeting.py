"""A star's hub where a member runs: everybody dials that member, and nobody else listens."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psutil
import pytest

from strombus.errors import ConfigurationError
from strombus.executors.members import run_member
from strombus.executors.rendezvous import RendezvousMember, RendezvousServer
from strombus.transport import TransportOptions, addresses, make_keys, make_transport, open_hub
from strombus.worker.meeting import connected
from strombus.worker.peers import Peers

HOSTS = ("host-a", "host-b", "host-c")


def listening():
    mine = psutil.Process().net_connections("tcp")
    return {one.laddr.port for one in mine if one.status == psutil.CONN_LISTEN}


def meet(options):
    """Have a member of each host say its name to the others; return what each heard, or why it did not."""
    keys = make_keys()

    def body(member, shared, payload):
        peers = Peers(member, 20.0)
        with connected(member, keys, "zeromq", options) as transport:
            peers.transport = transport
            heard = peers.gather(member.host.encode(), "a name")
            peers.gather(b"", "the end")
            return heard, listening()

    with RendezvousServer(len(HOSTS), "run", 0, 20.0) as server, ThreadPoolExecutor(len(HOSTS)) as pool:

        def start(rank):
            with RendezvousMember(server.ticket(rank), HOSTS[rank]) as member:
                return run_member(member, body, lambda: None, None)

        futures = [pool.submit(start, rank) for rank in range(len(HOSTS))]
        server.board.supervise(lambda: None)
        return [future.result() for future in futures]


def test_all_go_through_the_member_on_the_named_host():
    before = listening()
    options = TransportOptions(topology="star", hub="host-b", host="127.0.0.1")
    results = meet(options)
    assert [heard for heard, _ in results] == [[name.encode() for name in HOSTS]] * 3
    assert len(set.union(*(ports for _, ports in results)) - before) == 2  # the driver's and the hub's


def test_the_drivers_hub_is_on_the_loopback_where_all_members_are_on_its_host(monkeypatch):
    monkeypatch.delenv("STROMBUS_HOST", raising=False)
    monkeypatch.setattr(addresses, "_source_towards", {"127.0.0.1": "127.0.0.1", "192.0.2.1": "127.0.0.2"}.get)
    options, keys, here = TransportOptions(topology="star"), make_keys(), socket.gethostname()
    for hosts, expected in [((here, "127.0.0.1"), "127.0.0.1"), ((here, "192.0.2.1"), "127.0.0.2")]:
        with open_hub(partial(make_transport, "zeromq"), options, 2, keys, lambda hosts=hosts: hosts) as hub:
            assert json.loads(hub.address)[0] == expected


def test_a_host_without_a_member_is_named():
    options = TransportOptions(topology="star", hub="host-x")
    with pytest.raises(Exception, match=r"hub='host-x' is neither .*: members run on host-a, host-b, host-c") as caught:
        meet(options)
    assert ConfigurationError.__name__ in str(caught.value)
