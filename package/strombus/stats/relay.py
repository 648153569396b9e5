"""What workers log and warn of, brought to the driver's log: heard where it is said, repeated once, never a flood."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from strombus.errors import hide_credentials
from strombus.stats.recorder import where

__all__ = ["LOGGER", "Ear", "Listening", "Relay", "Said"]

LOGGER = "strombus.workers"
"""Where the driver repeats what workers log; its level decides what they hand over."""

BURST, WINDOW = 10, 10.0
"""Texts that are repeated in so many seconds."""
MOST = 20
"""Texts that an ear keeps until they are taken."""
LONGEST = 1000
"""Characters of one."""
REMEMBERED = 2000
"""Texts that are known to have been repeated already."""

Said = Sequence[Any]
"""A logger's name, a level, a text and how often; of what was left out the level is 0. Plain, for JSON."""


@dataclass(frozen=True)
class Listening:
    """What the driver wants to hear.

    Parameters
    ----------
    driver : str
        Host and process of the driver, whose own log needs no repeating.
    level : int
        The least that is handed over.
    """

    driver: str
    level: int

    @classmethod
    def now(cls) -> Listening:
        """Return what this process wants to hear, by the level of its logger."""
        logger = logging.getLogger(LOGGER)
        return cls(where(), logging.CRITICAL + 1 if logger.disabled else logger.getEffectiveLevel())


class Ear:
    """Hears what this process logs and warns of during a ``with`` block; nothing in the driver's own process.

    Parameters
    ----------
    listening : Listening, optional
        Without it nothing is heard.

    Attributes
    ----------
    far : bool
        Whether the driver is on another host, so that what this process shows by itself is not seen twice.
    """

    def __init__(self, listening: Listening | None) -> None:
        self.place = where()
        self.far = listening is not None and listening.driver.rpartition(":")[0] != self.place.rpartition(":")[0]
        self._level = logging.CRITICAL + 1
        if listening is not None and listening.driver != self.place:
            self._level = listening.level
        self._heard: Counter[tuple[str, int, str]] = Counter()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._level <= logging.CRITICAL:
            _PROCESS.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        _PROCESS.remove(self)

    def hear(self, name: str, level: int, text: str) -> None:
        """Take in one record."""
        if level < self._level:
            return
        key = name, level, text[:LONGEST]
        with self._lock:
            self._heard[key if key in self._heard or len(self._heard) < MOST else ("", 0, "")] += 1

    def take(self) -> tuple[Said, ...]:
        """Return what was heard since the last call, each text once."""
        with self._lock:
            found, self._heard = self._heard, Counter()
        return tuple((*key, count) for key, count in found.items())


class _Hearing(logging.Handler):
    """Tells the ears of a process what is logged and warned of in it.

    It is there as long as there is one, since several may overlap in any order: a gang and tasks beside it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ears: tuple[Ear, ...] = ()
        self._changing = threading.Lock()
        self._before: Callable[..., None] = warnings.showwarning

    def add(self, ear: Ear) -> None:
        with self._changing:
            if not self._ears:
                logging.getLogger().addHandler(self)
            self._ears += (ear,)
            if warnings.showwarning != self._warn:
                self._before, warnings.showwarning = warnings.showwarning, self._warn  # type: ignore[assignment]

    def remove(self, ear: Ear) -> None:
        with self._changing:
            self._ears = tuple(one for one in self._ears if one is not ear)
            if not self._ears:
                logging.getLogger().removeHandler(self)
                if warnings.showwarning == self._warn:
                    warnings.showwarning = self._before

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # arguments that do not go with the text: say it as it is
            text = str(record.msg)
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        self._tell(record.name, record.levelno, text)
        last = logging.lastResort
        # Python shows what nobody handles, and thinks that this one does.
        if last is not None and record.levelno >= last.level and self._shows and self._alone(record):
            last.handle(record)

    @property
    def _shows(self) -> bool:
        """Whether this process goes on to show what it showed before: its terminal is not the driver's."""
        return any(ear.far for ear in self._ears)

    def _alone(self, record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True

    def _warn(self, message: Any, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
        if getattr(self._before, "__module__", "") != "logging":  # that one logs it, and then it is heard as a record
            text = f"{category.__name__}: {message} ({Path(filename).name}:{lineno})"
            self._tell("py.warnings", logging.WARNING, text)
        if self._shows or self._before is not _SHOWN:
            self._before(message, category, filename, lineno, *more)

    def _tell(self, name: str, level: int, text: str) -> None:
        for ear in self._ears:
            ear.hear(name, level, text)


_SHOWN = warnings.showwarning
"""Python's own, which writes to the standard error."""

_PROCESS = _Hearing()
"""Of this process, as its root logger and its warnings are."""


class Relay:
    """Repeats on the driver what workers have said: each text once, ten of them in ten seconds; a context manager.

    At the end it says how much was not repeated.

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logger = logging.getLogger(LOGGER)
        self._known: set[tuple[str, int, str]] = set()
        self._times: list[float] = []
        self._again = self._beyond = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, rank: int | None, place: str, said: Iterable[Said]) -> None:
        """Repeat what was said at `place`, by the worker of this rank or by one that has none."""
        who = "a worker" if rank is None else f"worker {rank}"
        for name, level, text, count in said:
            if not level:
                self._beyond += count
            elif (name, level, text) in self._known:
                self._again += count
            elif not self._may_speak() or len(self._known) >= REMEMBERED:
                self._beyond += count
            else:
                self._known.add((name, level, text))
                self._again += count - 1
                self._logger.log(level, "%s on %s, %s: %s", who, place, name, hide_credentials(text))

    def _may_speak(self) -> bool:
        now = self._clock()
        self._times = [one for one in self._times if now - one < WINDOW]
        if len(self._times) >= BURST:
            return False
        self._times.append(now)
        return True

    def close(self) -> None:
        """Say how much was not repeated; a second call says nothing."""
        if self._again or self._beyond:
            self._logger.warning(
                "of what workers have logged, %d repetitions and %d others, beyond %d in %g s, are not shown",
                self._again,
                self._beyond,
                BURST,
                WINDOW,
            )
        self._again = self._beyond = 0
