"""Phases are timed, counted, thinned out without losing totals, and written."""

from __future__ import annotations

import csv
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strombus.stats import Recorder, TrainingStats
from strombus.types import Event


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
    with recorder.phase("fit") as figures:
        figures["loss"] = 1.0
    recorder.note("epoch", 0.0, 1.0, {})
    assert recorder.stats.events == []


def test_what_was_taken_is_not_there_again():
    recorder = Recorder(enabled=True)
    with recorder.phase("fit"):
        pass
    assert recorder.take().keys() == ("fit",)
    assert recorder.take().keys() == ()


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


def test_figures_of_figures_and_missing_ones_come_back_as_they_were():
    values = {"threshold": 0.5, "percentiles": {"50": 1.0, "99.9": 2.0}, "score": None}
    (event,) = TrainingStats([Event("encoding", 0, 1.0, 2.0, "h:1", values)]).events
    assert event.values["percentiles"] == values["percentiles"]
    assert math.isnan(event.values["score"])


def made(durations, figures, keep, pieces=1):
    """Record events one by one, or in `pieces` that come whole and are merged, as workers' do."""
    stats = TrainingStats(keep=keep)
    for piece in np.array_split(np.arange(len(durations)), pieces):
        part = TrainingStats() if pieces > 1 else stats
        for number in piece.tolist():
            part.record("fit", 0, "h:1", float(number), durations[number], {"examples": figures[number]})
        if part is not stats:
            stats.merge(part)
    return stats


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 100)), min_size=1, max_size=200),
    st.integers(1, 50),
    st.integers(1, 7),
)
def test_thinning_keeps_totals_and_every_so_manieth_event(events, keep, pieces):
    durations, figures = zip(*events, strict=True)
    stats = made(durations, figures, keep, pieces)
    totals = stats.totals("fit")
    assert totals.count == len(events)
    assert totals.seconds == pytest.approx(sum(durations))
    assert totals.longest == max(durations)
    assert totals.figures["examples"] == sum(figures)
    (track,) = stats.tracks
    assert len(track) <= max(1, keep)
    assert [event.started for event in stats.events] == list(range(0, len(events), track.every))


def test_all_phases_are_thinned_alike_and_rare_ones_stay():
    stats = TrainingStats(keep=1000)
    for step in range(3000):
        for name in ("fit", "exchange"):
            stats.record(name, 0, "h:1", float(step), 0.1, {})
        if step % 1000 == 0:
            stats.record("validate", 0, "h:1", float(step), 0.1, {})
    assert {track.name: track.every for track in stats.tracks} == {"fit": 8, "exchange": 8, "validate": 1}
    assert [stats.totals(name).count for name in stats.keys()] == [3000, 3000, 3]  # noqa: SIM118 - no mapping


def test_merging_what_was_thinned_already_keeps_totals_and_spreads_evenly():
    parts = [made([0.5] * count, [2] * count, keep) for count, keep in ((1000, 100), (300, 1000), (700, 50))]
    stats = TrainingStats(keep=150)
    for part in parts:
        stats.merge(part)
    totals = stats.totals("fit")
    assert (totals.count, totals.seconds, totals.figures["examples"]) == (2000, 1000.0, 4000)
    (track,) = stats.tracks
    assert abs(len(track) - 2000 / track.every) <= len(parts)


def test_totals_are_those_of_numpy():
    durations = np.random.default_rng(0).exponential(size=500)
    totals = made(durations.tolist(), [1] * 500, 1000).totals("fit")
    assert totals.mean == pytest.approx(durations.mean())
    assert (totals.median, totals.p95) == pytest.approx(tuple(np.percentile(durations, (50, 95))))
