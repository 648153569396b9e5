"""Who trains in a process, and who waits."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from strombus.executors import turns
from strombus.executors.turns import Turns


def test_one_at_a_time_in_whatever_order():
    one, at_work, most = Turns(), [], []

    def work(number):
        with one.take():
            at_work.append(number)
            most.append(len(at_work))
            time.sleep(0.01)
            at_work.remove(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(12)))
    assert most == [1] * 12


def test_a_thread_has_it_at_once_within_its_own_turn():
    one = Turns()
    with one.take(), one.take(timeout=0.0), one.take("a gang", timeout=0.0):
        pass
    with one.take(timeout=0.0):  # all of them were given back
        pass


def test_members_of_a_gang_share_a_turn_until_the_last_has_ended():
    one, together = Turns(), threading.Barrier(2, timeout=10)

    def member(seconds):
        with one.take("a gang"):
            together.wait()
            time.sleep(seconds)
        return time.monotonic()

    with ThreadPoolExecutor(2) as threads:
        ends = [threads.submit(member, seconds) for seconds in (0.0, 0.2)]
        together_by = time.monotonic() + 10
        while one._now is None and time.monotonic() < together_by:
            time.sleep(0.001)
        with one.take(timeout=10):
            came = time.monotonic()
    assert came >= max(end.result() for end in ends) - 0.05


def test_who_waits_says_so_and_gives_up_in_time(monkeypatch, caplog):
    monkeypatch.setattr(turns, "_SAY", 0.05)
    one = Turns()
    with one.take(), ThreadPoolExecutor(1) as thread, caplog.at_level(logging.WARNING):

        def come():
            with one.take(timeout=0.2):
                return

        with pytest.raises(TimeoutError, match=r"waited 0.2 s for another fit in this process"):
            thread.submit(come).result()
    assert "waiting for another fit in this process" in caplog.text


def test_who_was_told_to_end_and_hangs_is_waited_for_no_longer(monkeypatch):
    monkeypatch.setattr(turns, "_GRACE", 0.1)
    one, told, ended = Turns(), threading.Event(), threading.Event()

    def hang():
        with one.take("old", left=told.is_set):
            assert ended.wait(10)

    with ThreadPoolExecutor(1) as thread:
        hanging = thread.submit(hang)
        while one._now is None:
            time.sleep(0.001)
        told.set()
        with one.take("new", timeout=10):
            ended.set()
            hanging.result()  # the old one ends, and takes nobody's turn along
            assert one._now is not None
        assert one._now is None
