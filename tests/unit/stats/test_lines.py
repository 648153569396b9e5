"""Statistics that were saved are what is loaded, and anything else is refused in one sentence."""

from __future__ import annotations

import json

import pytest

from strombus.errors import DataError
from strombus.stats import TrainingStats
from strombus.types import ClockBounds


def make_stats():
    stats = TrainingStats(keep=20)
    stats.about |= {"backend": "dask", "workers": 2}
    stats.note_clock("far:7", ClockBounds(3.0, 3.5))
    stats.note_clock("near:8", ClockBounds(most=0.1))
    for step in range(50):
        loss = float("nan") if step == 8 else 1 / (1 + step)
        stats.record("fit", 1, "far:7", 100.0 + step / 7, 0.01 * step, {"examples": 32, "loss": loss})
    stats.record("export", None, "near:8", 99.5, 0.25, {})
    return stats


def seen(stats):
    """Everything of `stats` that can be asked for; NaN as text, so that it equals itself."""
    totals = {key: stats.totals(key) for key in stats.keys()}  # noqa: SIM118 - no mapping
    return stats.about, stats.clocks, repr(stats.events), totals, [track.every for track in stats.tracks]


def test_what_was_saved_is_what_is_loaded(tmp_path):
    stats = make_stats()
    stats.save(tmp_path / "runs" / "first")
    stats.save(tmp_path / "runs" / "first")  # over the old one
    assert [path.name for path in (tmp_path / "runs" / "first").iterdir()] == ["stats.jsonl"]
    loaded = TrainingStats.load(tmp_path / "runs" / "first")
    assert seen(loaded) == seen(stats)
    loaded.record("fit", 1, "far:7", 0.0, 0.0, {"examples": 1, "loss": 0.0})
    assert loaded.totals("fit").count == 51


def test_statistics_travel_to_a_uri():
    make_stats().save("memory://runs/second")
    assert seen(TrainingStats.load("memory://runs/second")) == seen(make_stats())


def test_a_folder_without_statistics_is_an_error_that_says_where_they_come_from(tmp_path):
    with pytest.raises(DataError, match=r"holds no stats.jsonl: .*collect_training_stats=True"):
        TrainingStats.load(tmp_path)


def changed(**fields):
    """Return what `pack` gives with fields of the second line changed."""
    head, first, *rest = make_stats().pack().decode().splitlines()
    return "\n".join([head, json.dumps(json.loads(first) | fields), *rest]).encode()


HEAD = make_stats().pack().splitlines()[0] + b"\n"
DEEP = b"[" * 100_000
BAD = {
    "nothing": b"",
    "pickle": b"\x80\x05cos\nsystem\n(S'true'\ntR.",
    "another program's": b'{"events": []}\n',
    "a later version": HEAD.replace(b'"version":1', b'"version":2'),
    "no JSON": HEAD + b"{",
    "cut short": make_stats().pack()[:400],
    "deep": HEAD + DEEP,
    "a path as a phase": changed(phase="../../fit"),
    "a script as a figure": changed(sums={"a\nb": 1.0}),
    "columns of different lengths": changed(started=[1.0]),
    "another number of figures": changed(figures=[]),
    "more events kept than there were": changed(count=2),
    "no time": changed(started=[float("nan")] * 13),
    "a negative duration": changed(durations=[-1.0] * 13),
    "texts for numbers": changed(seconds="1"),
    "a huge number": changed(count=10**400),
    "an unknown field": changed(code="import os"),
    "a negative rank": changed(rank=-1),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_save_does_not_write_is_refused(tmp_path, data):
    (tmp_path / "stats.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=r"stats.jsonl, line [12], is not what TrainingStats.save of this version wr"):
        TrainingStats.load(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "stats.jsonl").open("wb") as file:
        file.truncate(2**29)  # sparse
    with pytest.raises(DataError, match="536,870,912 bytes"):
        TrainingStats.load(tmp_path)
