"""The rendezvous over real sockets: members in threads, the driver in the test's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zmq

from strombus.errors import ConfigurationError, GangError, GangTimeout
from strombus.executors.members import Superseded, run_member
from strombus.executors.rendezvous import RendezvousMember, RendezvousServer, RendezvousTicket
from strombus.testing import executor_tasks as tasks
from strombus.testing.executor_suite import ScriptedControl
from strombus.types import Event


def start(ticket: RendezvousTicket, body: Callable[..., Any], payload: Any) -> Any:
    with RendezvousMember(ticket, "host") as member:
        return run_member(member, body, lambda: None, payload)


def run(body: Callable[..., Any], payloads: list[Any], timeout: float = 20.0, **options: Any) -> list[Any]:
    with ThreadPoolExecutor(len(payloads)) as threads:
        with RendezvousServer(len(payloads), "run", 2, timeout) as server:
            running: list[Future[Any]] = [
                threads.submit(start, server.ticket(rank), body, payload) for rank, payload in enumerate(payloads)
            ]
            server.board.supervise(lambda: None, **options)
        return [one.result(10) for one in running]


def test_exchange_returns_all_payloads_in_rank_order() -> None:
    payloads = [b"", b"\x00" * 100_000, b"\xffabc"]
    assert run(tasks.exchange_twice, payloads) == [(payloads, [one * 2 for one in payloads])] * 3


def test_events_commands_and_stop_travel() -> None:
    seen: list[tuple[int, Event]] = []
    run(tasks.report_steps, [2, 1], on_event=lambda rank, event: seen.append((rank, event)))
    assert sorted((rank, event.values["step"]) for rank, event in seen) == [(0, 0), (0, 1), (1, 0)]
    sent = [{"learning_rate": 0.1}, "again"]
    assert run(tasks.wait_for_command, [9.0] * 2, control=ScriptedControl(0.1, sent)) == [sent, sent]
    assert run(tasks.wait_for_stop, [9.0] * 2, control=ScriptedControl(0.1, stop=True)) == [True, True]


def test_the_member_that_failed_by_itself_is_named() -> None:
    started = time.monotonic()
    with pytest.raises(GangError, match="ZeroDivisionError: this member") as caught:
        run(lambda member, _, payload: tasks.exchange_and_fail(member, 1, payload), [None] * 3)
    assert caught.value.part == 1
    assert "exchange_and_fail" in caught.value.traceback
    assert time.monotonic() - started < 5


def test_a_missing_member_is_a_timeout_that_names_it() -> None:
    with ThreadPoolExecutor(1) as threads, RendezvousServer(2, "run", 0, 0.5) as server:
        running = threads.submit(start, server.ticket(0), tasks.exchange_twice, b"")
        with pytest.raises(GangTimeout, match=r"ranks \[1\].*timeout"):
            server.board.supervise(lambda: None)
        assert "stopped" in running.result(5).text


def test_an_exchange_that_a_member_leaves_out_is_a_timeout() -> None:
    def body(member: Any, _: Any, __: Any) -> None:
        if member.rank == 0:
            member.exchange(b"")
        tasks.wait_for_stop(member, None, 10.0)

    with pytest.raises(GangTimeout, match=r"members \[1\] in exchange 0"):
        run(body, [None, None], timeout=1.0)


def test_an_exchange_waits_for_who_reports_that_it_works() -> None:
    def body(member: Any, _: Any, __: Any) -> list[bytes]:
        if member.rank == 1:
            for _ in range(8):
                time.sleep(0.25)
                member.report(Event("alive", 1, 0.0))
        return member.exchange(b"")

    assert run(body, [None, None], timeout=1.0) == [[b"", b""]] * 2


def test_a_second_run_of_a_body_is_superseded_and_fails_the_gang() -> None:
    with ThreadPoolExecutor(3) as threads, RendezvousServer(2, "run", 0, 20) as server:
        first = [threads.submit(start, server.ticket(rank), tasks.wait_for_stop, 15.0) for rank in range(2)]
        while len(server.board.places) < 2:
            time.sleep(0.01)
        again = threads.submit(start, server.ticket(1), tasks.wait_for_stop, 15.0)
        with pytest.raises(GangError, match=r"member 1 .* started it again"):
            server.board.supervise(lambda: None)
        assert again.result(5) == Superseded(1)
        assert [one.result(5) for one in first] == [True, True]


def test_a_lost_member_goes_before_the_failures_that_follow_from_it() -> None:
    def body(member: Any, _: Any, __: Any) -> None:
        member.exchange(b"")
        if member.rank == 0:
            raise ConnectionResetError("peer 1 is gone")
        threading.Event().wait(1)

    with ThreadPoolExecutor(2) as threads, RendezvousServer(2, "run", 0, 20) as server:
        for rank in range(2):
            threads.submit(start, server.ticket(rank), body, None)

        def poll() -> None:
            if server.board._failures:
                server.board.lose(1, "its process ended")

        with pytest.raises(GangError, match=r"member 1 .* was lost: its process ended"):
            server.board.supervise(poll)


def test_an_error_of_the_callback_stops_the_members() -> None:
    def fail(rank: int, event: Event) -> None:
        raise KeyError("callback")

    def body(member: Any, _: Any, __: Any) -> bool:
        tasks.report_steps(member, None, 1)
        return tasks.wait_for_stop(member, None, 20.0)

    started = time.monotonic()
    with pytest.raises(KeyError, match="callback"):
        run(body, [None], on_event=fail)
    assert time.monotonic() - started < 5


def test_numpy_values_of_events_become_plain_and_others_are_refused() -> None:
    seen: list[Event] = []

    def body(member: Any, _: Any, value: Any) -> None:
        member.report(Event("x", values={"value": value}))

    run(body, [np.float32(0.5)], on_event=lambda _, event: seen.append(event))
    assert seen[0].values == {"value": 0.5}
    with pytest.raises(GangError, match="ConfigurationError"):
        run(body, [object()])


def test_a_payload_that_is_no_address_is_refused() -> None:
    with pytest.raises(GangError, match="at most 1048576 bytes") as caught:
        run(lambda member, _, size: member.exchange(bytes(size)), [2**21])
    assert isinstance(caught.value.__cause__, ConfigurationError | None)


def test_strangers_are_not_let_in() -> None:
    """One with the server's public key and its own key pair is no member; nor is one of another run."""
    with ThreadPoolExecutor(3) as threads, RendezvousServer(1, "run", 0, 20) as server:
        ticket = server.ticket(0)
        public, secret = zmq.curve_keypair()
        stranger = threads.submit(
            start, replace(ticket, public=public, secret=secret, timeout=0.5), tasks.exchange_twice, b"stranger"
        )
        other = threads.submit(start, replace(ticket, run_id="x", timeout=0.5), tasks.exchange_twice, b"other")
        assert stranger.result(10).name == other.result(10).name == "GangTimeout"
        member = threads.submit(start, ticket, tasks.exchange_twice, b"x")
        server.board.supervise(lambda: None)
        assert member.result(5) == ([b"x"], [b"xx"])


def test_members_stop_when_the_driver_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strombus.executors.members.LEASE", 1.0)
    with ThreadPoolExecutor(1) as threads:
        with RendezvousServer(1, "run", 0, 20) as server:
            running = threads.submit(start, server.ticket(0), tasks.wait_for_stop, 15.0)
            while not server.board.places:
                time.sleep(0.01)
        assert running.result(8) is True
