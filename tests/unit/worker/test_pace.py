"""How long another member may take for a step."""

from __future__ import annotations

import pytest

from strombus.executors.members import LEASE
from strombus.worker import mixing
from strombus.worker.mixing import Pace


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
    assert pace.limit(2) == (60.0, "step_timeout")
    run(pace, clock, [1.0, 1.0, 30.0])
    assert pace.limit(2) == (120.0, "timeout")


def test_an_option_stands_above_what_is_measured(clock):
    assert Pace(120.0, 7.0).limit(2) == (7.0, "step_timeout")
