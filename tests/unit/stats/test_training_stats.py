"""Phases are timed, counted and written."""

from __future__ import annotations

import csv
import time

import pytest

from strombus.stats import Recorder, TrainingStats


def test_a_phase_is_timed_even_when_it_fails():
    recorder = Recorder(enabled=True, rank=3)
    with recorder.phase("fit", examples=8) as figures:
        figures["loss"] = 0.5
        time.sleep(0.01)
    with pytest.raises(RuntimeError), recorder.phase("fit"):
        raise RuntimeError("broken")
    first, second = recorder.stats.events
    assert (first.name, first.rank, dict(first.values)) == ("fit", 3, {"examples": 8, "loss": 0.5})
    assert first.seconds >= 0.01
    assert second.started >= first.started


def test_a_disabled_recorder_keeps_nothing():
    recorder = Recorder(enabled=False)
    with recorder.phase("fit"):
        pass
    assert recorder.stats.events == []


def test_text_and_csv_hold_every_event(tmp_path):
    recorder = Recorder(enabled=True)
    for examples in (4, 6):
        with recorder.phase("fit", examples=examples):
            pass
    with recorder.phase("load"):
        pass
    stats = TrainingStats(recorder.stats.events)
    assert stats.keys() == ("fit", "load")
    assert [line.split()[:2] for line in stats.as_string().splitlines()] == [["fit", "2"], ["load", "1"]]
    stats.to_csv(tmp_path)
    rows = list(csv.DictReader((tmp_path / "fit.csv").open()))
    assert [row["examples"] for row in rows] == ["4", "6"]


def test_an_unknown_phase_lists_the_known():
    with pytest.raises(KeyError, match="there are: none"):
        TrainingStats().values("fit")
