"""One page that shows where a training's time went; it needs no connection."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from strombus.stats.charts import duration_charts, epoch_charts, lanes_of, packed, step_charts, timeline
from strombus.stats.groups import COVERING, GROUPS, IDLE, divide, group_of
from strombus.stats.training import PhaseTotals, TrainingStats

__all__ = ["render", "write_page"]


def write_page(stats: TrainingStats, path: Path) -> Path:
    """Write the page of `stats` to a file, whose folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(stats), encoding="utf-8")
    return path


def render(stats: TrainingStats) -> str:
    """Return the page of `stats` as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("strombus.stats", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "duration": duration, "percent": percent}
    division = divide(stats)
    return environment.get_template("page.html").render(
        title=_title(stats),
        tiles=list(_tiles(stats)),
        groups=[group for group in (*GROUPS, IDLE) if group in division.shares],
        division=division,
        phases=list(_phases(stats)),
        workers=list(_workers(stats)),
        data=_script_data(stats),
    )


# -- numbers as people read them


def number(value: float) -> str:
    """Return a number of three or four digits, thousands set apart."""
    if math.isnan(value):
        return "none"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"


def percent(share: float) -> str:
    """Return a share in percent."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.0995 else f"{100 * share:.0f} %"


# -- the headline


def _title(stats: TrainingStats) -> str:
    master = str(stats.about.get("master", "training")).replace("_", " ")
    backend = stats.about.get("backend")
    return master[:1].upper() + master[1:] + (f" on {backend}" if backend else "")


def _tiles(stats: TrainingStats) -> Iterator[tuple[str, str]]:
    """Yield names and values of the headline."""
    known = {key: stats.totals(key) for key in ("train", "epoch", "fit", "encode") if key in stats.keys()}  # noqa: SIM118
    shares = divide(stats).shares
    yield "workers", str(len({track.rank for track in stats.tracks if track.rank is not None}))
    if "epoch" in known:
        yield "epochs", number(known["epoch"].count)
    if "fit" in known:
        examples = known["fit"].figures.get("examples", 0)
        yield "examples trained", number(examples)
        yield "minibatches", number(known["fit"].count)
        if "epoch" in known and known["epoch"].seconds:
            yield "examples a second", number(examples / known["epoch"].seconds)
    if "train" in known:
        yield "time", duration(known["train"].seconds)
    if shares:
        yield "computing", percent(shares.get("computing", 0.0))
        yield "exchanging or idle", percent(shares.get("exchanging", 0.0) + shares[IDLE])
    if "encode" in known:
        yield "sent by all workers", f"{number(known['encode'].figures.get('bytes', 0) / 1e6)} MB"
    if "epoch" in known:
        yield "last score", number(stats.values("epoch")[-1].values["score"])


@dataclass(frozen=True)
class _Row:
    """A phase's line of the table; `share` is of all workers' time, or of the driver's."""

    name: str
    group: str
    side: str
    totals: PhaseTotals
    share: float | None


def _phases(stats: TrainingStats) -> Iterator[_Row]:
    """Yield the rows of the table, workers' phases first, the longest before the others."""
    rows = []
    for on_workers in (True, False):
        names = {track.name for track in stats.tracks if (track.rank is not None) is on_workers}
        side = TrainingStats.of_tracks(track for track in stats.tracks if (track.rank is not None) is on_workers)
        found = {name: side.totals(name) for name in names}
        whole = sum(totals.seconds for name, totals in found.items() if name not in COVERING)
        for name, totals in found.items():
            share = totals.seconds / whole if whole and name not in COVERING else None
            rows.append(_Row(name, group_of(name), "workers" if on_workers else "driver", totals, share))
    yield from sorted(rows, key=lambda row: (row.side == "driver", -row.totals.seconds))


def _workers(stats: TrainingStats) -> Iterator[dict[str, str]]:
    """Yield what is known of each worker and process: its clock, and what it trained."""
    places = sorted({(track.rank, track.host) for track in stats.tracks if track.rank is not None})
    for rank, host in places:
        mine = TrainingStats.of_tracks(track for track in stats.tracks if (track.rank, track.host) == (rank, host))
        fits = mine.totals("fit") if "fit" in mine.keys() else None  # noqa: SIM118
        bounds = stats.clocks.get(host)
        clock = "not measured"
        if bounds is not None:
            clock = f"{1e3 * bounds.offset:+,.1f} ms" if bounds.offset else "as the driver's"
            clock += f", to {1e3 * bounds.error:,.1f} ms" if bounds.error < float("inf") else ""
        yield {
            "name": f"worker {rank}",
            "place": host,
            "examples": number(fits.figures.get("examples", 0)) if fits else "0",
            "minibatches": number(fits.count) if fits else "0",
            "fitting": duration(fits.seconds) if fits else "0",
            "clock": clock,
        }


# -- what the script draws


def _script_data(stats: TrainingStats) -> Markup:
    """Return the numbers of all charts as JSON that is safe inside a script element."""
    lanes = lanes_of(stats)
    tracks = [track for lane in lanes.values() for track in lane]
    starts = [float(track.table()[:, 0].min()) + stats.offset(track.host) for track in tracks]
    ends = [float(track.table()[:, :2].sum(axis=1).max()) + stats.offset(track.host) for track in tracks]
    zero, end = min(starts, default=0.0), max(ends, default=0.0)
    phases = list(dict.fromkeys(row.name for row in _phases(stats)))
    drawn = [phase for phase in phases if phase not in COVERING]
    data = {
        "groups": list(GROUPS),
        "phases": [{"name": phase, "group": group_of(phase)} for phase in phases],
        "seconds": end - zero,
        "lanes": packed(stats, lanes, zero, phases),
        "timeline": timeline(stats, lanes, zero, end),
        "steps": step_charts(stats, zero),
        "epochs": epoch_charts(stats),
        "durations": duration_charts(stats, drawn, zero),
    }
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))
