"""The contract of a `Transport` as tests: subclass `TransportSuite` to check one.

Examples
--------
A test module of a third party's transport::

    class TestMyTransport(TransportSuite):
        transport = MyTransport
        unsupported = {"test_faults_lose_nothing": "MyTransport has no links to put faults on"}
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import numpy as np
import psutil
import pytest

from strombus.errors import ConfigurationError, PeerLost
from strombus.testing.links import LinkFaults, faulty, kill
from strombus.testing.transport_tasks import (
    PATIENCE,
    assert_complete,
    gang,
    in_threads,
    loss_seen_by,
    take,
    talk,
    train,
    unconnected,
    update_of,
)
from strombus.transport import Message, Seat, Transport, TransportOptions, make_keys
from strombus.transport.linked import LinkedTransport
from strombus.transport.topology import Shape

__all__ = ["TransportSuite", "gang", "in_threads", "take"]

FAULTS = {
    "delays": LinkFaults(seed=1, delay=0.002, jitter=0.01),
    "duplicates": LinkFaults(seed=2, duplicate=0.3),
    "reorders": LinkFaults(seed=3, reorder=0.2),
    "losses": LinkFaults(seed=4, lose=0.1),
    "flipped bits": LinkFaults(seed=5, corrupt=0.05),
    "all": LinkFaults(seed=6, lose=0.03, duplicate=0.1, reorder=0.1, corrupt=0.02, jitter=0.003),
}


class TransportSuite:
    """Check one transport against the contract of `Transport`.

    A subclass sets `transport`, and where the defaults do not suit `options` and `members`, the size of the gangs.
    Every case runs; one that a transport cannot pass is listed in `unsupported` with the reason, and is then
    skipped with that reason.
    """

    transport: ClassVar[type[Transport]]
    members: ClassVar[int] = 3
    options: ClassVar[TransportOptions] = TransportOptions(
        host="127.0.0.1", connect_timeout=30, dead_after=1.0, send_timeout=20
    )
    unsupported: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cases = {name for name in vars(TransportSuite) if name.startswith("test_")}
        if overridden := sorted(cases & set(vars(cls))):
            raise TypeError(f"cases of TransportSuite cannot be overridden: {', '.join(overridden)}; use `unsupported`")
        if unknown := sorted(set(cls.unsupported) - cases):
            raise TypeError(f"`unsupported` names no case of TransportSuite: {', '.join(unknown)}")

    @pytest.fixture(autouse=True)
    def declared_gaps(self, request: pytest.FixtureRequest) -> None:
        """Skip what the transport declares that it cannot do."""
        name = getattr(request.node, "originalname", request.node.name)
        if name in self.unsupported:
            pytest.skip(self.unsupported[name])

    @pytest.fixture(scope="class")
    @classmethod
    def ends(cls) -> Iterator[list[Transport]]:
        """Yield one gang for all cases that leave it whole and its inboxes empty."""
        with gang(cls.transport, cls.members, cls.options, "shared") as ends:
            yield ends

    def _gang(self, *, members: int = 0, run_id: str = "run", **options: Any) -> Any:
        return gang(self.transport, members or self.members, self.options.model_copy(update=options), run_id)

    # ---- messages

    def test_each_message_comes_once_and_in_order(self, ends: list[Transport]) -> None:
        steps = 25
        heard = in_threads(ends, lambda end: talk(end, steps))
        for rank, messages in enumerate(heard):
            assert_complete(messages, set(range(self.members)) - {rank}, steps)

    def test_a_message_for_one_reaches_that_one(self, ends: list[Transport]) -> None:
        def tell_each(end: Transport) -> list[Message]:
            me = end.seat.rank
            for other in set(range(self.members)) - {me}:
                end.send(2, other, bytes([me, other]), to=other)
            return take(end, self.members - 1)

        for rank, messages in enumerate(in_threads(ends, tell_each)):
            others = set(range(self.members)) - {rank}
            assert sorted((m.origin, bytes(m.payload)) for m in messages) == [
                (o, bytes([o, rank])) for o in sorted(others)
            ]
            assert {(m.kind, m.step) for m in messages} == {(2, rank)}

    def test_a_payload_may_change_once_it_is_sent(self, ends: list[Transport]) -> None:
        payload = bytearray(b"a" * 200_000)
        ends[0].send(1, 0, payload)
        payload[:] = b"b" * 200_000
        for messages in in_threads(ends[1:], lambda end: take(end, 1)):
            assert bytes(messages[0].payload) == b"a" * 200_000

    def test_who_computes_holds_up_nobody_else(self, ends: list[Transport]) -> None:
        busy = ends[1]
        speaker = ends[-1]
        others = [end for end in ends if end not in (busy, speaker)]
        for step in range(20):
            speaker.send(1, step, b"")
        for messages in in_threads(others, lambda end: take(end, 20, 10.0)):
            assert [message.step for message in messages] == list(range(20))
        assert [message.step for message in take(busy, 20)] == list(range(20))

    def test_a_message_too_large_or_for_nobody_is_refused(self, ends: list[Transport]) -> None:
        with pytest.raises(ConfigurationError, match="cannot send to member"):
            ends[0].send(1, 0, b"", to=self.members)
        with self._gang(members=2, largest_message=1024) as pair:
            with pytest.raises(ConfigurationError, match="largest_message=1024"):
                pair[0].send(1, 0, bytes(1025))
            pair[0].send(1, 0, bytes(1024))
            assert len(take(pair[1], 1)[0].payload) == 1024

    # ---- slow readers

    def test_a_slow_reader_loses_nothing_and_the_sender_waits(self) -> None:
        payload = np.random.default_rng(0).bytes(60_000)
        with self._gang(queue=16) as ends:
            done = threading.Event()

            def send() -> None:
                for step in range(200):
                    ends[0].send(1, step, payload)
                done.set()

            thread = threading.Thread(target=send)
            thread.start()
            assert not done.wait(0.5)
            for messages in in_threads(ends[1:], lambda end: take(end, 200)):
                assert [message.step for message in messages] == list(range(200))
                assert all(message.payload == payload for message in messages)
            thread.join(PATIENCE)
            assert done.is_set()

    def test_a_message_larger_than_the_window_goes_alone(self) -> None:
        with self._gang(window=2**20) as ends:
            sizes = (3 * 2**20, 10, 2**20, 3 * 2**20)

            def work(end: Transport) -> list[int]:
                for step, size in enumerate(sizes if end is ends[0] else ()):
                    end.send(1, step, bytes(size))
                return [len(message.payload) for message in take(end, len(sizes) if end is not ends[0] else 0)]

            assert in_threads(ends, work)[1:] == [list(sizes)] * (self.members - 1)

    def test_members_that_all_send_at_once_do_not_wait_for_each_other(self) -> None:
        with self._gang(queue=4) as ends:
            for messages in in_threads(ends, lambda end: talk(end, 60, listen=False)):
                assert len(messages) == 60 * (self.members - 1)

    def test_a_reader_that_takes_nothing_is_an_error(self) -> None:
        def send_for_ever(end: Transport) -> None:
            for step in range(100_000):
                end.send(1, step, bytes(1000), to=1)

        with self._gang(members=2, queue=8, send_timeout=0.5) as ends:
            with pytest.raises(PeerLost, match=r"member 1 took no message for 0\.5 s") as caught:
                send_for_ever(ends[0])
            assert caught.value.rank == 1

    # ---- faults

    @pytest.mark.parametrize("fault", FAULTS)
    def test_faults_lose_nothing(self, fault: str) -> None:
        """Each update once, whatever happens to frames; then all replicas are the sum of all updates."""
        kind = faulty(cast(type[LinkedTransport], self.transport), FAULTS[fault])
        options, keys = self.options.model_copy(update={"dead_after": 20.0, "queue": 8}), make_keys()
        done = threading.Barrier(self.members)

        def join_and_train(end: Transport) -> np.ndarray[Any, np.dtype[np.int64]]:
            try:
                end.connect(addresses)
                return train(end, 12, done)
            finally:
                end.close(flush=1.0)

        with unconnected(kind, self.members, options, "run", keys) as (ends, addresses):
            replicas = in_threads(ends, join_and_train)
        total = sum(update_of(rank, step) for rank in range(self.members) for step in range(12))
        assert all(np.array_equal(replica, total) for replica in replicas)

    @pytest.mark.parametrize("which", [0, 1, -1], ids=["the first", "the second", "the last"])
    def test_a_member_that_dies_is_named_by_all_others_in_time(self, which: int) -> None:
        with self._gang() as ends:
            dead = ends[which]
            self.kill(dead)
            seen = in_threads([end for end in ends if end is not dead], loss_seen_by)
        assert [rank for rank, _ in seen] == [dead.seat.rank] * (self.members - 1)
        assert max(seconds for _, seconds in seen) < self.options.dead_after + 10

    def test_the_others_go_on_without_one_that_died(self) -> None:
        if not self.transport.tolerates or not Shape.of(self.options.topology, self.members).is_mesh:
            pytest.skip("members do not go on without a lost one here")
        with self._gang(queue=4) as ends:
            others, dead = ends[:-1], ends[-1].seat.rank
            for end in others:
                end.tolerate()
            self.kill(ends[-1])
            heard = in_threads(others, lambda end: talk(end, 20, others=len(others) - 1))
            for end, messages in zip(others, heard, strict=True):
                assert_complete(messages, set(range(dead)) - {end.seat.rank}, 20)
                assert "was lost" in end.lost[dead]

    def kill(self, end: Transport) -> None:
        """Take a member away without a word; a transport that is not made of links says how."""
        kill(cast(LinkedTransport, end))

    # ---- strangers

    def test_two_gangs_do_not_see_each_other(self) -> None:
        with self._gang(run_id="one") as first, self._gang(run_id="two") as second:
            first[0].send(1, 1, b"first")
            second[0].send(1, 2, b"second")
            assert {bytes(m[0].payload) for m in in_threads(first[1:], lambda end: take(end, 1))} == {b"first"}
            assert {bytes(m[0].payload) for m in in_threads(second[1:], lambda end: take(end, 1))} == {b"second"}

    def test_a_stranger_with_other_keys_delivers_no_byte(self) -> None:
        options = self.options.model_copy(update={"connect_timeout": 1.0})
        end, stranger = (self.transport(Seat(rank, 2, "run", 0, make_keys()), options) for rank in range(2))
        try:
            addresses = [end.address(), stranger.address()]

            def connect(one: Transport) -> None:
                with pytest.raises((PeerLost, ConfigurationError)):
                    one.connect(addresses)

            in_threads([end, stranger], connect)
            assert end.figures.bytes_received == 0
        finally:
            in_threads([end, stranger], lambda one: one.close(flush=0.0))

    def test_who_does_not_come_is_named(self) -> None:
        keys, options = make_keys(), self.options.model_copy(update={"connect_timeout": 0.5})
        end, absent = (self.transport(Seat(rank, 2, "run", 0, keys), options) for rank in range(2))
        try:
            with pytest.raises(PeerLost, match=r"did not meet member 1 at .*connect_timeout") as caught:
                end.connect([end.address(), absent.address()])
            assert caught.value.rank == 1
        finally:
            in_threads([end, absent], lambda one: one.close(flush=0.0))

    # ---- the end

    def test_last_words_arrive_and_a_goodbye_is_no_loss(self) -> None:
        with self._gang() as ends:
            *others, leaver = ends
            leaver.send(1, 0, b"last words")
            until = time.monotonic() + self.options.dead_after + 1.0

            def hear(end: Transport) -> list[bytes]:
                found = take(end, 1)
                while time.monotonic() < until:
                    found += end.receive(0.05)
                return [bytes(message.payload) for message in found]

            closing = threading.Thread(target=leaver.close)
            closing.start()
            assert in_threads(others, hear) == [[b"last words"]] * len(others)
            closing.join(PATIENCE)
            others[0].send(1, 1, b"to who is left")
            for messages in in_threads(others[1:], lambda end: take(end, 1)):
                assert [message.step for message in messages] == [1]

    def test_members_close_in_any_order(self) -> None:
        with self._gang() as ends:

            def leave(end: Transport) -> int:
                time.sleep(0.05 * end.seat.rank)
                end.send(1, 0, b"")
                found = len(take(end, self.members - 1))
                end.close(flush=PATIENCE)
                return found

            started = time.monotonic()
            assert in_threads(ends, leave) == [self.members - 1] * self.members
            assert time.monotonic() - started < PATIENCE / 2

    def test_closing_frees_ports_and_threads(self) -> None:
        process = psutil.Process()
        with self._gang():
            pass  # what a library opens once stays open
        threads, ports = threading.active_count(), len(process.net_connections("tcp"))
        with self._gang() as ends:
            pass
        for end in ends:
            end.close()
        deadline = time.monotonic() + 5.0
        while threading.active_count() > threads and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() <= threads
        listening = [one for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        assert len(listening) <= ports
