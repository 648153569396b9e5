"""What the page draws, as plain numbers: few enough to be quick, whatever the run's length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.stats.groups import COVERING, GROUPS, group_of
from strombus.stats.track import Track
from strombus.stats.training import TrainingStats

__all__ = ["Lane", "duration_charts", "epoch_charts", "lanes_of", "packed", "step_charts", "timeline"]

Array = NDArray[np.float64]
Chart = dict[str, Any]

_POINTS = 150
"""Points of a line."""
_LINES = 6
"""Workers that have a line each; of more, the mean and the range are drawn."""
_BINS = 30
_FEW = 4
"""Events of a phase from which on they are drawn."""
_SLOTS = 100
"""Stretches of the timeline."""
_TICK = 1e-5
"""Seconds of the lanes' unit of time."""

Lane = list[Track]


def lanes_of(stats: TrainingStats) -> dict[str, Lane]:
    """Return the tracks of each worker and of the driver, without phases that hold others.

    What no worker did as such, but in one's process, is in that worker's lane.
    """
    tracks = [track for track in stats.tracks if track.name not in COVERING]
    driver = {track.host for track in tracks if track.rank is None and track.name != "aggregate"}
    busiest: dict[str, tuple[int, int]] = {}
    for track in tracks:
        if track.rank is not None:
            busiest[track.host] = max(busiest.get(track.host, (0, 0)), (track.count, track.rank))
    lanes: dict[str, Lane] = {"driver": []}
    for track in sorted(tracks, key=lambda one: (one.rank is not None, one.rank or 0)):
        rank = track.rank
        if rank is None and track.host not in driver and track.host in busiest:
            rank = busiest[track.host][1]
        lanes.setdefault("driver" if rank is None else f"worker {rank}", []).append(track)
    return {name: lane for name, lane in lanes.items() if lane}


def _spans(stats: TrainingStats, lane: Lane) -> Array:
    """Return start, end, weight and group of all events of a lane, sorted by start."""
    groups = list(GROUPS)
    rows = []
    for track in lane:
        table = track.table()
        started = table[:, 0] + stats.offset(track.host)
        more = np.full((len(table), 2), (track.every, groups.index(group_of(track.name))), np.float64)
        rows.append(np.column_stack([started, started + table[:, 1], more]))
    spans = np.concatenate(rows)
    return spans[np.argsort(spans[:, 0], kind="stable")]


def packed(stats: TrainingStats, lanes: Mapping[str, Lane], zero: float, phases: Sequence[str]) -> list[Chart]:
    """Return each lane's events as whole numbers: time since the one before began, duration, phase."""
    found = []
    for name, lane in lanes.items():
        tables = [(track.table()[:, :2] + [stats.offset(track.host) - zero, 0], track) for track in lane]
        rows = np.concatenate(
            [
                np.column_stack([np.rint(table / _TICK), np.full(len(table), phases.index(track.name))])
                for table, track in tables
            ]
        ).astype(np.int64)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        rows[:, 0] = np.diff(rows[:, 0], prepend=0)
        every = max(track.every for track in lane)
        found.append({"name": name, "every": every, "rows": rows.ravel().tolist()})
    return found


def timeline(stats: TrainingStats, lanes: Mapping[str, Lane], zero: float, end: float) -> Chart:
    """Return, for each lane and stretch of time, the share that each kind of work took."""
    edges = np.linspace(zero, max(end, zero + 1e-6), _SLOTS + 1)
    found = []
    for name, lane in lanes.items():
        spans, shares = _spans(stats, lane), np.zeros((_SLOTS, len(GROUPS)))
        for group in range(len(GROUPS)):
            mine = spans[spans[:, 3] == group]
            if len(mine):
                shares[:, group] = np.diff(_worked(mine, edges)) / np.diff(edges)
        shares /= np.maximum(1, shares.sum(axis=1, keepdims=True))
        found.append({"name": name, "shares": np.round(shares, 3).tolist()})
    return {"seconds": end - zero, "lanes": found}


def _worked(spans: Array, edges: Array) -> Array:
    """Return the seconds worked before each edge; an event that was kept stands for those that were not."""
    started, ended, weight = spans[:, 0], spans[:, 1], spans[:, 2]
    done = np.concatenate([[0.0], np.cumsum((ended - started) * weight)])
    begun = np.searchsorted(started, edges)
    # Those that begin before an edge count whole, but for what of the last ones lies beyond it.
    whole = done[begun]
    for number, edge in enumerate(edges):
        for last in range(begun[number] - 1, max(-1, begun[number] - 4), -1):
            whole[number] -= max(0.0, ended[last] - edge) * weight[last]
    return np.asarray(np.maximum.accumulate(whole))


# -- lines over time


def step_charts(stats: TrainingStats, zero: float) -> list[Chart]:
    """Return the charts of what is known of each minibatch, as far as it is."""
    found = [
        _rate_chart(stats, zero),
        _figure_chart(stats, zero, "fit", "loss", "Loss of the minibatches", 1.0, ""),
        _figure_chart(stats, zero, "encode", "tau", "Threshold (tau)", 1.0, ""),
        _figure_chart(stats, zero, "encode", "share", "Elements sent", 100.0, "%"),
        _figure_chart(stats, zero, "encode", "bytes", "Sent in a step", 1e-3, "kB"),
    ]
    return [chart for chart in found if chart is not None]


def _points(stats: TrainingStats, phase: str, figure: str) -> dict[int, Array]:
    """Return start, value and weight of each event of a worker that has the figure."""
    found: dict[int, list[Array]] = {}
    for track in stats.tracks:
        if track.name == phase and track.rank is not None and figure in track.figures:
            table = track.table()
            column = table[:, 2 + track.figures.index(figure)]
            started = table[:, 0] + stats.offset(track.host)
            rows = np.column_stack([started, column, np.full(len(table), float(track.every))])
            found.setdefault(track.rank, []).append(rows[np.isfinite(column)])
    joined = {rank: np.concatenate(rows) for rank, rows in sorted(found.items())}
    return {rank: rows for rank, rows in joined.items() if len(rows)}


def _edges(points: Mapping[int, Array], count: int) -> Array:
    first = min(float(rows[:, 0].min()) for rows in points.values())
    last = max(float(rows[:, 0].max()) for rows in points.values())
    return np.linspace(first, max(last, first + 1e-6), max(1, count) + 1)


def _rate_chart(stats: TrainingStats, zero: float) -> Chart | None:
    points = _points(stats, "fit", "examples")
    most = max((len(rows) for rows in points.values()), default=0)
    if most < 4:
        return None
    edges = _edges(points, min(60, most // 4))
    rates = [
        np.histogram(rows[:, 0], edges, weights=rows[:, 1] * rows[:, 2])[0] / np.diff(edges) for rows in points.values()
    ]
    chart = _lines("Examples a second", "", edges - zero, points, np.array(rates))
    if 1 < len(rates) <= _LINES:
        chart["lines"].append({"name": "all", "y": _rounded(np.sum(rates, axis=0))})
    elif len(rates) > _LINES:
        chart["title"] += " of a worker"
    chart["floor"] = 0
    return chart


def _figure_chart(
    stats: TrainingStats, zero: float, phase: str, figure: str, title: str, scale: float, unit: str
) -> Chart | None:
    points = _points(stats, phase, figure)
    most = max((len(rows) for rows in points.values()), default=0)
    if most < 2:
        return None
    edges = _edges(points, min(_POINTS, most))
    means = [scale * _mean_in(rows[:, 0], rows[:, 1], edges) for rows in points.values()]
    return _lines(title, unit, edges - zero, points, np.array(means))


def _mean_in(places: Array, values: Array, edges: Array) -> Array:
    """Return the mean of the values in each stretch, NaN where there are none."""
    counts, sums = np.histogram(places, edges)[0], np.histogram(places, edges, weights=values)[0]
    means: Array = np.full(len(counts), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _lines(title: str, unit: str, edges: Array, points: Mapping[int, Array], values: Array) -> Chart:
    middles = (edges[1:] + edges[:-1]) / 2
    chart: Chart = {"title": title, "unit": unit, "x": _rounded(middles), "axis": "s"}
    if len(points) <= _LINES:
        chart["lines"] = [
            {"name": f"worker {rank}", "y": _rounded(row)} for rank, row in zip(points, values, strict=True)
        ]
    else:
        some = np.isfinite(values).any(axis=0)
        chart["x"] = _rounded(middles[some])
        low, mean, high = (pick(values[:, some], axis=0) for pick in (np.nanmin, np.nanmean, np.nanmax))
        chart["lines"] = [{"name": f"mean of {len(points)} workers", "y": _rounded(mean)}]
        chart["band"] = {"name": "lowest to highest", "low": _rounded(low), "high": _rounded(high)}
    return chart


def _rounded(values: Array) -> list[float | None]:
    """Return numbers of five digits; None for what is not finite."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values.tolist()]


# -- by epoch


def epoch_charts(stats: TrainingStats) -> list[Chart]:
    """Return the scores by epoch, and a chart of each other validation figure."""
    epochs = [track for track in stats.tracks if track.name == "epoch"]
    tables = [dict(zip(track.figures, track.table()[:, 2:].T, strict=True)) for track in epochs]
    if not tables:
        return []
    names = list(dict.fromkeys(name for table in tables for name in table))
    columns = {
        name: np.concatenate([table.get(name, np.full(len(table["epoch"]), np.nan)) for table in tables])
        for name in names
    }
    order = np.argsort(columns["epoch"], kind="stable")
    x = _rounded(columns["epoch"][order])

    def line(name: str, key: str) -> Chart:
        return {"name": name, "y": _rounded(columns[key][order])}

    scores = [line("training", "score")]
    if "validation/score" in columns:
        scores.append(line("validation", "validation/score"))
    others = [name for name in names if name.startswith("validation/") and name != "validation/score"]
    charts = [("Score", scores), *((f"Validation: {name[11:]}", [line("validation", name)]) for name in others)]
    common = {"unit": "", "axis": "epoch", "x": x, "dots": True}
    return [{"title": title, "lines": lines, **common} for title, lines in charts]


# -- durations


def duration_charts(stats: TrainingStats, phases: Sequence[str], zero: float) -> list[Chart]:
    """Return, for each phase that ran a few times, its duration over time and a histogram."""
    found = []
    for phase in phases:
        tracks = [track for track in stats.tracks if track.name == phase]
        rows = np.concatenate([track.table()[:, :2] + [stats.offset(track.host) - zero, 0] for track in tracks])
        if len(rows) >= _FEW:
            found.append({"phase": phase, "line": _duration_line(rows), "histogram": _histogram(1e3 * rows[:, 1])})
    return found


def _duration_line(rows: Array) -> Chart:
    """Return each duration, or of many the median, lowest and highest of as many stretches as can be seen."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    pieces = np.array_split(rows, min(len(rows), _POINTS))
    chart: Chart = {"title": "Duration", "unit": "ms", "axis": "s", "floor": 0}
    chart["x"] = _rounded(np.array([piece[:, 0].mean() for piece in pieces]))
    milliseconds = [1e3 * piece[:, 1] for piece in pieces]
    several = len(rows) > _POINTS
    middle = np.array([np.median(piece) for piece in milliseconds])
    chart["lines"] = [{"name": "median" if several else "each", "y": _rounded(middle)}]
    if several:
        low, high = (np.array([pick(piece) for piece in milliseconds]) for pick in (np.min, np.max))
        chart["band"] = {"name": "shortest to longest", "low": _rounded(low), "high": _rounded(high)}
    return chart


def _histogram(milliseconds: Array) -> Chart:
    """Count durations in stretches of equal ratio: they spread over powers of ten."""
    sizes = np.maximum(milliseconds, 1e-3)
    low, high = float(sizes.min()), float(sizes.max())
    if high < 1.2 * low:
        low, high = low / 1.1, high * 1.1
    edges = np.geomspace(low, high, _BINS + 1)
    edges[0], edges[-1] = low, high
    counts = np.histogram(sizes, edges)[0]
    return {"title": "Histogram", "edges": _rounded(edges), "counts": counts.tolist()}
