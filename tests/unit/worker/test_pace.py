"""How long another member may take for a step."""

from __future__ import annotations

import time
from functools import partial
from types import SimpleNamespace

import pytest

from strombus.errors import DataError, PeerLost
from strombus.executors.members import LEASE
from strombus.masters.gang_watch import GangWatch
from strombus.testing.transport_suite import gang, in_threads
from strombus.transport import TransportOptions
from strombus.transport.memory import MemoryTransport
from strombus.worker import mixing
from strombus.worker.data_wait import DataWait
from strombus.worker.mixing import Mixer, Pace
from strombus.worker.peers import Peers


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(mixing.time, "monotonic", lambda: now[0])
    return now


def run(pace, clock, seconds):
    pace.start()
    for step in seconds:
        clock[0] += step
        pace.note()


def test_an_epochs_first_steps_are_not_measured(clock):
    pace = Pace(120.0, None)
    run(pace, clock, [50.0, 40.0])
    assert pace.limit(9) == (120.0, "timeout")
    run(pace, clock, [50.0, 40.0, 0.1])
    assert pace.limit(9) == (LEASE, "step_timeout")
    assert pace.limit(1) == (120.0, "timeout")


def test_the_longest_step_counts_up_to_the_timeout(clock):
    pace = Pace(120.0, None)
    run(pace, clock, [1.0, 1.0, 3.0, 1.0])
    assert pace.limit(3) == (60.0, "step_timeout")
    assert pace.limit(2) == (120.0, "timeout")  # nothing of its own was measured yet
    run(pace, clock, [1.0, 1.0, 30.0])
    assert pace.limit(3) == (120.0, "timeout")


def test_an_option_stands_above_what_is_measured(clock):
    assert Pace(120.0, 7.0).limit(2) == (7.0, "step_timeout")


class Nothing:
    def apply_own_(self, scale):
        pass

    def apply_(self, payload, scale):
        pass


@pytest.mark.parametrize("staleness", [None, 3, 0])
def test_a_member_of_slow_steps_is_waited_for_by_one_of_fast_steps(monkeypatch, staleness):
    """Where a fast member never waits, only the slow one's updates tell how long steps take."""
    monkeypatch.setattr(mixing, "LEASE", 0.1)

    def train(end):
        member = SimpleNamespace(rank=end.seat.rank, size=2, stopping=lambda: False)
        peers = Peers(member, 20.0)
        peers.transport = end
        mixer = Mixer(peers, Nothing(), "sum", staleness, Pace(20.0, None))
        mixer.start([[1] * 6] * 2)
        for _ in range(6):
            time.sleep(0.25 * end.seat.rank)
            mixer.add(b"", 1.0)
        return mixer.finish(b"end")

    with gang(MemoryTransport, 2, TransportOptions()) as ends:
        assert in_threads(ends, train) == [{1: b"end"}, {0: b"end"}]


def test_another_member_may_be_busy_three_times_as_long_as_oneself():
    """As with a checkpoint on slow storage: nobody's timeout was meant for that."""
    with gang(MemoryTransport, 2, TransportOptions()) as ends:
        member = SimpleNamespace(rank=0, size=2, stopping=lambda: False)
        peers = Peers(member, 0.2)
        peers.transport = ends[0]
        peers.poll()
        time.sleep(0.4)  # at work
        started = time.monotonic()
        with pytest.raises(PeerLost, match=r"member 0 waited 1\.\d+ s for a word of member 1.*raise `timeout`"):
            peers.wait_for_word("a word")
        assert 1.2 <= time.monotonic() - started < 2.4


def test_who_has_its_data_again_does_not_count_among_those_who_wait():
    watch = GangWatch(SimpleNamespace(first_epoch=0, observer=SimpleNamespace(interrupted=lambda: False)), 2)
    peers = [
        Peers(SimpleNamespace(rank=rank, size=2, stopping=lambda: False, report=partial(watch.on_event, rank)), 1.0)
        for rank in range(2)
    ]
    first, second = (DataWait(one) for one in peers)
    first.look(0.9)
    second.look(1.1)
    first.look(1.1)
    second.end()
    second.look(0.9)
    assert watch.commands() == [{"starved": True}]
    second.told()  # too late
    second.look(0.9)
    second.end()
    first.end()
    first.look(1.1)
    assert watch.commands() == []
    second.look(1.1)
    second.look(1.3)
    assert watch.commands() == [{"starved": True}]
    second.told()
    with pytest.raises(DataError, match=r"all workers wait for their data, worker 1 for 1\.5 s"):
        second.look(1.5)


def test_a_sign_of_life_is_no_message_and_puts_the_deadline_off():
    with gang(MemoryTransport, 2, TransportOptions()) as ends:

        def work(end):
            reports = []
            member = SimpleNamespace(rank=end.seat.rank, size=2, stopping=lambda: False, report=reports.append)
            peers = Peers(member, 0.5)
            peers.transport = end
            if member.rank == 1:
                for _ in range(6):
                    time.sleep(0.2)
                    peers.sign()
            return peers.gather(bytes([member.rank]), "a word"), len(reports)

        found = in_threads(ends, work)
        assert [heard for heard, _ in found] == [[b"\0", b"\1"]] * 2
        assert found[1][1] >= 4
