"""The record of a training: every timed phase, as text and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from strombus.types import Event

__all__ = ["TrainingStats"]


class TrainingStats:
    """Events of one or more fits, in the order in which they came in (DL4J: ``SparkTrainingStats``).

    Phases of the driver: ``export``, ``split``, ``broadcast``, ``submit``, ``round`` (waiting for one),
    ``apply``. Phases of a worker: ``load`` (parameters into its module), ``data_wait``, ``fit`` (one minibatch).
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events = list(events)

    def add(self, events: Iterable[Event]) -> None:
        """Append events."""
        self.events.extend(events)

    def keys(self) -> tuple[str, ...]:
        """Return the names of the phases seen, sorted."""
        return tuple(sorted({event.name for event in self.events}))

    def values(self, key: str) -> tuple[Event, ...]:
        """Return the events of one phase by starting time.

        Raises
        ------
        KeyError
            For a phase that never ran; lists those that did.
        """
        found = sorted((e for e in self.events if e.name == key), key=lambda event: event.started)
        if not found:
            raise KeyError(f"no phase {key!r} was timed; there are: {', '.join(self.keys()) or 'none'}")
        return tuple(found)

    def as_string(self) -> str:
        """Return one line for each phase: how often, total and mean milliseconds (DL4J: ``statsAsString``)."""
        lines = []
        for key in self.keys():
            seconds = [event.seconds for event in self.values(key)]
            total = 1e3 * sum(seconds)
            lines.append(f"{key:<12} {len(seconds):>7} times {total:>12.1f} ms {total / len(seconds):>10.3f} ms each")
        return "\n".join(lines)

    def to_csv(self, directory: str | Path) -> list[Path]:
        """Write one CSV file for each phase into `directory` and return their paths."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        return [self._write(folder / f"{key}.csv", key) for key in self.keys()]

    def _write(self, path: Path, key: str) -> Path:
        events = self.values(key)
        names = sorted({name for event in events for name in event.values})
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["rank", "host", "started", "seconds", *names])
            for event in events:
                figures = [event.values.get(name, "") for name in names]
                writer.writerow(
                    ["" if event.rank is None else event.rank, event.host, event.started, event.seconds, *figures]
                )
        return path
