"""The record of a training: every timed phase, as text, CSV, a page to look at, and a file to keep."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from strombus.errors import DataError
from strombus.files import open_storage
from strombus.stats.lines import FILE_NAME, LARGEST_FILE, pack, unpack
from strombus.stats.track import Track, flatten
from strombus.types import ClockBounds, Event

__all__ = ["PhaseTotals", "TrainingStats"]

_KEPT = 200_000
"""Events that are kept, about 50 bytes each; beyond that they are thinned out."""


@dataclass(frozen=True, slots=True)
class PhaseTotals:
    """What all events of a phase come to.

    Parameters
    ----------
    count : int
    seconds, longest : float
        Of all events, also of those that were thinned out.
    median, p95 : float
        Seconds, of the events that were kept.
    figures : mapping of str to float
        Sums of the figures over all events that had a finite value.
    """

    count: int
    seconds: float
    longest: float
    median: float
    p95: float
    figures: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Seconds of one event."""
        return self.seconds / self.count


class TrainingStats:
    """Timed phases of one or more fits (DL4J: ``SparkTrainingStats``); docs/statistics.md lists the phases.

    At most `keep` events are kept, evenly thinned out beyond that; counts and totals stay exact.

    Parameters
    ----------
    events : iterable of Event
    keep : int

    Attributes
    ----------
    about : dict
        Texts and numbers on the run: ``backend``, ``master``, ``workers``.
    """

    def __init__(self, events: Iterable[Event] = (), keep: int = _KEPT) -> None:
        self.about: dict[str, str | int | float] = {}
        self._keep = keep
        self._tracks: dict[tuple[Any, ...], Track] = {}
        self._clocks: dict[str, ClockBounds] = {}
        self._kept = 0
        self.add(events)

    @classmethod
    def of_tracks(cls, tracks: Iterable[Track]) -> TrainingStats:
        """Return statistics of these tracks alone."""
        stats = cls()
        for track in tracks:
            stats.merge_track(track)
        return stats

    # -- taking in -------------------------------------------------------------------------------

    def add(self, events: Iterable[Event]) -> None:
        """Append events; their values are numbers, or mappings of numbers."""
        for event in events:
            self.record(event.name, event.rank, event.host, event.started, event.seconds, event.values)

    def record(
        self, name: str, rank: int | None, host: str, started: float, seconds: float, values: Mapping[str, Any]
    ) -> None:
        """Append one event."""
        figures = flatten(values)
        track = self._track(name, rank, host, tuple(figures))
        self._kept += track.add(started, seconds, tuple(figures.values()))
        self._thin_out()

    def merge(self, other: TrainingStats) -> None:
        """Append all that `other` holds."""
        self.about |= other.about
        for host, bounds in other._clocks.items():
            self.note_clock(host, bounds)
        for theirs in other._tracks.values():
            self.merge_track(theirs)

    def merge_track(self, theirs: Track) -> None:
        """Append the events of one phase."""
        track = self._track(theirs.name, theirs.rank, theirs.host, theirs.figures)
        before = len(track)
        track.merge(theirs)
        self._kept += len(track) - before
        self._thin_out()

    def note_clock(self, host: str, bounds: ClockBounds) -> None:
        """Take note of how far the clock of a process (``"name:pid"``) is from the driver's."""
        self._clocks[host] = self._clocks.get(host, ClockBounds()).narrowed(bounds)

    def bound_clocks(self, after: float, before: float) -> None:
        """Take note that all events here happened between two moments of the driver's clock."""
        for track in self._tracks.values():
            table = track.table()
            first, last = float(table[0, 0]), float(table[:, :2].sum(axis=1).max())
            self.note_clock(track.host, ClockBounds(after - first, before - last))

    def _track(self, name: str, rank: int | None, host: str, figures: tuple[str, ...]) -> Track:
        key = (name, rank, host, figures)
        found = self._tracks.get(key)
        if found is None:
            found = self._tracks[key] = Track(*key)
        return found

    def _thin_out(self) -> None:
        """Halve the longest tracks until no more than the limit is kept."""
        while self._kept > self._keep:
            longest = max(map(len, self._tracks.values()))
            if longest < 2:
                return  # as many tracks as events: nothing to thin
            for track in self._tracks.values():
                if len(track) > longest // 2:
                    track.thin()
            self._kept = sum(map(len, self._tracks.values()))

    # -- looking at ------------------------------------------------------------------------------

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The events as tables, one for each phase, worker and process; by the workers' own clocks."""
        return tuple(self._tracks.values())

    @property
    def clocks(self) -> dict[str, ClockBounds]:
        """What is known of each process's clock, by ``"name:pid"``."""
        return dict(self._clocks)

    @property
    def events(self) -> list[Event]:
        """The events that were kept, by starting time, all by the driver's clock."""
        return self._events(self._tracks.values())

    def _events(self, tracks: Iterable[Track]) -> list[Event]:
        found = [event for track in tracks for event in track.events(self.offset(track.host))]
        return sorted(found, key=lambda event: event.started)

    def offset(self, host: str) -> float:
        """Return the seconds to add to a process's time to get the driver's."""
        return self._clocks.get(host, ClockBounds()).offset

    def keys(self) -> tuple[str, ...]:
        """Return the names of the phases seen, sorted."""
        return tuple(sorted({track.name for track in self._tracks.values()}))

    def values(self, key: str) -> tuple[Event, ...]:
        """Return the events of one phase that were kept, by starting time.

        Raises
        ------
        KeyError
            For a phase that never ran; lists those that did.
        """
        return tuple(self._events(self._of(key)))

    def totals(self, key: str) -> PhaseTotals:
        """Return what all events of one phase come to; KeyError for a phase that never ran."""
        tracks = self._of(key)
        seconds = np.concatenate([track.table()[:, 1] for track in tracks])
        figures: dict[str, float] = {}
        for track in tracks:
            for name, total in zip(track.figures, track.sums, strict=True):
                figures[name] = figures.get(name, 0.0) + total
        median, p95 = np.percentile(seconds, (50, 95)).tolist()
        return PhaseTotals(
            sum(track.count for track in tracks),
            sum(track.seconds for track in tracks),
            max(track.longest for track in tracks),
            median,
            p95,
            figures,
        )

    def _of(self, key: str) -> list[Track]:
        found = [track for track in self._tracks.values() if track.name == key]
        if not found:
            raise KeyError(f"no phase {key!r} was timed; there are: {', '.join(self.keys()) or 'none'}")
        return found

    def as_string(self) -> str:
        """Return one line for each phase: how often, total, mean and longest (DL4J: ``statsAsString``)."""
        lines = []
        for key in self.keys():
            found = self.totals(key)
            lines.append(
                f"{key:<12} {found.count:>7} times {1e3 * found.seconds:>12.1f} ms {1e3 * found.mean:>10.3f} ms each "
                f"{1e3 * found.longest:>10.3f} ms at most"
            )
        return "\n".join(lines)

    # -- writing and reading ---------------------------------------------------------------------

    def to_csv(self, directory: str | Path) -> list[Path]:
        """Write one CSV file for each phase into `directory` and return their paths (DL4J: ``exportStatFiles``)."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        return [self._write_csv(folder / f"{key}.csv", key) for key in self.keys()]

    def _write_csv(self, path: Path, key: str) -> Path:
        tracks = self._of(key)
        names = sorted({name for track in tracks for name in track.figures})
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["rank", "host", "started", "seconds", *names])
            for event in self._events(tracks):
                figures = flatten(event.values)
                rank = "" if event.rank is None else event.rank
                numbers = [f"{figures[name]:.15g}" if name in figures else "" for name in names]
                writer.writerow([rank, event.host, event.started, event.seconds, *numbers])
        return path

    def to_html(self, path: str | Path) -> Path:
        """Write one page that shows it all, without a connection (DL4J: ``StatsUtils.exportStatsAsHtml``)."""
        from strombus.stats.report import write_page

        return write_page(self, Path(path))

    def pack(self) -> bytes:
        """Return everything as lines of JSON."""
        return pack(self)

    @classmethod
    def unpack(cls, data: bytes, name: str = "statistics") -> TrainingStats:
        """Read what `pack` returned; `name` is what an error calls it.

        Raises
        ------
        DataError
            When it is anything else; says which line and why.
        """
        stats = cls()
        unpack(stats, data, name)
        return stats

    def save(self, folder: str | Path) -> None:
        """Write everything into `folder`, a directory or URI, which is made if it is missing."""
        system, root = open_storage(folder)
        system.makedirs(root, exist_ok=True)
        target = f"{root.rstrip('/')}/{FILE_NAME}"
        system.pipe_file(f"{target}.part", self.pack())
        system.mv(f"{target}.part", target)

    @classmethod
    def load(cls, folder: str | Path) -> TrainingStats:
        """Read what `save` wrote; nothing in it is executed.

        Raises
        ------
        DataError
            When there is nothing, or it is damaged, or of another version.
        """
        system, root = open_storage(folder)
        path = f"{root.rstrip('/')}/{FILE_NAME}"
        if not system.isfile(path):
            raise DataError(
                f"{folder} holds no {FILE_NAME}: it comes from TrainingStats.save, or from a named fit with "
                "collect_training_stats=True"
            )
        if (size := system.size(path)) > LARGEST_FILE:
            raise DataError(f"{path} has {size:,} bytes; what save writes has at most {LARGEST_FILE:,}")
        return cls.unpack(system.cat_file(path), path)
