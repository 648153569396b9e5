"""The in-process twin: its hub goes with its members, and members in other processes are refused."""

from __future__ import annotations

import gc
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from strombus.errors import ConfigurationError
from strombus.testing.transport_suite import gang
from strombus.transport import Seat, TransportOptions, make_transport, memory
from strombus.transport.memory import MemoryTransport

OPTIONS = TransportOptions(connect_timeout=5)


def _address(_):
    end = make_transport("memory", Seat(0, 2, "run", 0), OPTIONS)
    return end.address(), end.close(flush=0)


def test_members_in_other_processes_are_refused():
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:
        foreign, _ = pool.submit(_address, None).result(60)
    end = make_transport("memory", Seat(1, 2, "run", 0), OPTIONS)
    try:
        process = json.loads(foreign)[1]
        with pytest.raises(
            ConfigurationError, match=rf"threads of one process.*member 0 in process {process} .*zeromq"
        ):
            end.connect([foreign, end.address()])
    finally:
        end.close(flush=0)


def test_a_rank_is_taken_once():
    ends = [make_transport("memory", Seat(0, 2, "run", 0), OPTIONS) for _ in range(2)]
    ends[0].address()
    with pytest.raises(ConfigurationError, match="has a member 0 in this process already"):
        ends[1].address()
    for end in ends:
        end.close(flush=0)


def test_nothing_is_left_of_a_gang():
    with gang(MemoryTransport, 3, OPTIONS, "a run of its own") as ends:
        assert any(key[0] == "a run of its own" for key in memory._HUBS)
    del ends
    gc.collect()
    assert not any(key[0] == "a run of its own" for key in memory._HUBS)


def test_attempts_do_not_see_each_other():
    ends = [make_transport("memory", Seat(rank, 2, "run", attempt), OPTIONS) for attempt in (0, 1) for rank in (0, 1)]
    addresses = [end.address() for end in ends]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda end, known: end.connect(known), ends, [addresses[:2]] * 2 + [addresses[2:]] * 2))
    ends[0].send(1, 7, b"first")
    ends[2].send(1, 8, b"second")
    assert [message.step for message in ends[1].receive(1.0)] == [7]
    assert [message.step for message in ends[3].receive(1.0)] == [8]
    for end in ends:
        end.close(flush=0)
