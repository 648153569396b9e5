"""Training statistics under DL4J's names and keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from strombus.data import store
from strombus.errors import ConfigurationError
from strombus.stats import TrainingStats
from strombus.stats.groups import COVERING
from strombus.stats.report import render
from strombus.types import Event

__all__ = ["SparkTrainingStats", "StatsUtils"]

_PREFIX = "ParameterAveragingMaster"
KEYS = {
    "parameterAveragingMasterExportTimesMs": ("export", "Export"),
    f"{_PREFIX}CountRddSizeTimesMs": ("count", "CountRDD"),
    f"{_PREFIX}BroadcastCreateTimesMs": ("broadcast", "CreateBroadcast"),
    f"{_PREFIX}FitTimesMs": ("train", "Fit"),
    f"{_PREFIX}SplitTimesMs": ("split", "Split"),
    f"{_PREFIX}RepartitionTimesMs": ("split", "Repartition"),
    f"{_PREFIX}MapPartitionsTimesMs": ("round", "MapPart"),
    f"{_PREFIX}AggregateTimesMs": ("aggregate", "Aggregate"),
    f"{_PREFIX}ProcessParamsUpdaterTimesMs": ("apply", "ProcessParams"),
    "WorkerFlatMapTotalTimeMs": ("gang", "Total"),
    "WorkerFlatMapGetInitialModelTimeMs": ("init", "GetInitModel"),
    "WorkerFlatMapDataSetGetTimesMs": ("data_wait", "GetDataSet"),
    "WorkerFlatMapProcessMiniBatchTimesMs": ("fit", "ProcessBatch"),
    "ParameterAveragingWorkerBroadcastGetValueTimeMs": ("load", "BroadcastGet"),
    "ParameterAveragingWorkerInitTimeMs": ("init", "ModelInit"),
    "ParameterAveragingWorkerFitTimesMs": ("fit", "Fit"),
}
"""DL4J's key: the phase that is timed here, and DL4J's short name."""


class SparkTrainingStats:
    """DL4J's methods on `strombus.stats.TrainingStats`, which is `core`; a key is one of DL4J's, or a phase's name."""

    def __init__(self, core: TrainingStats | None = None) -> None:
        self.core = TrainingStats() if core is None else core

    def getKeySet(self) -> set[str]:
        """Return DL4J's keys whose phase was timed, and the names of phases for which DL4J has no key."""
        seen = set(self.core.keys())
        known = {key for key, (phase, _) in KEYS.items() if phase in seen}
        return known | (seen - {phase for phase, _ in KEYS.values()})

    def getValue(self, key: str) -> list[Event]:
        """Return the events of a key by starting time; none where its phase never ran.

        Raises
        ------
        ConfigurationError
            For a key that is none; lists those there are.
        """
        phase = self._phase(key)
        return list(self.core.values(phase)) if phase in self.core.keys() else []  # noqa: SIM118

    def getShortNameForKey(self, key: str) -> str:
        """Return DL4J's short name; a phase is its own."""
        return KEYS[key][1] if key in KEYS else self._phase(key)

    def defaultIncludeInPlots(self, key: str) -> bool:
        """Say whether the page's timeline shows the phase: all but those that only hold others."""
        return self._phase(key) not in COVERING

    def addOtherTrainingStats(self, other: SparkTrainingStats | TrainingStats) -> None:
        """Append all that `other` holds."""
        self.core.merge(core_of(other))

    def getNestedTrainingStats(self) -> SparkTrainingStats | None:
        """Return what the workers timed, as a copy; None where they timed nothing, or are all there is."""
        tracks = self.core.tracks
        workers = [track for track in tracks if track.rank is not None]
        if not workers or len(workers) == len(tracks):
            return None
        return SparkTrainingStats(TrainingStats.of_tracks(workers))

    def statsAsString(self) -> str:
        """Return one line for each phase; see `strombus.stats.TrainingStats.as_string`."""
        return self.core.as_string()

    def exportStatFiles(self, outputPath: str, sc: Any = None) -> None:
        """Write a CSV file for each phase into a folder of the driver's machine; `sc` is not needed."""
        self.core.to_csv(outputPath)

    def _phase(self, key: str) -> str:
        if key in KEYS:
            return KEYS[key][0]
        if key in self.core.keys():  # noqa: SIM118
            return key
        known = ", ".join(sorted(self.getKeySet())) or "none"
        raise ConfigurationError(f"no phase is called {key!r}; timed were: {known}")


def core_of(stats: SparkTrainingStats | TrainingStats) -> TrainingStats:
    """Return the core's statistics, whichever of the two is given."""
    return stats.core if isinstance(stats, SparkTrainingStats) else stats


class StatsUtils:
    """Write training statistics, DL4J's or `strombus.stats.TrainingStats`, for people to look at."""

    @staticmethod
    def exportStatsAsHtml(stats: SparkTrainingStats | TrainingStats, *arguments: Any) -> None:
        """Write one page that shows it all.

        Parameters
        ----------
        stats
        *arguments
            As in DL4J: optionally the longest timeline in milliseconds, which is not needed, since the page's
            timeline zooms; a path or URI, or a binary or text stream; and a context, which is not needed.
        """
        page = render(core_of(stats))
        targets = [one for one in arguments if isinstance(one, str) or hasattr(one, "write")]
        if len(targets) != 1:
            raise ConfigurationError(f"exportStatsAsHtml needs one path or stream to write to, got {arguments!r}")
        _write(targets[0], page)

    exportStatsAsHTML = exportStatsAsHtml

    @staticmethod
    def exportStats(events: Sequence[Event], *arguments: Any) -> None:
        """Write events as text.

        Parameters
        ----------
        events : list of Event
            As `SparkTrainingStats.getValue` returns.
        *arguments
            As in DL4J: the path, or the folder and a file's name; the delimiter; and a context, which is not needed.
        """
        texts = [one for one in arguments if isinstance(one, str)]
        if len(texts) not in (2, 3):
            raise ConfigurationError(f"exportStats needs a path, or a folder and a name, and a delimiter, got {texts}")
        delimiter = texts[-1]
        lines = [delimiter.join(("rank", "host", "started", "seconds"))]
        for event in events:
            rank = "" if event.rank is None else str(event.rank)
            lines.append(delimiter.join((rank, event.host, repr(event.started), repr(event.seconds))))
        store.write_text(store.join(store.normalise(texts[0]), *texts[1:-1]), "\n".join(lines) + "\n")

    @staticmethod
    def getDurationAsString(events: Sequence[Event], delim: str) -> str:
        """Return the durations in whole milliseconds, one after another."""
        return delim.join(str(round(1e3 * event.seconds)) for event in events)


def _write(target: Any, page: str) -> None:
    if isinstance(target, str):
        store.write_text(store.normalise(target), page)
        return
    try:
        target.write(page.encode())
    except TypeError:  # a stream of text
        target.write(page)
