"""Ctrl-C and SIGTERM while a fit runs: noted, obeyed where training may stop, passed on when it has."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from strombus.errors import FitInterrupted

__all__ = ["Interruption"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """What the signals SIGINT and SIGTERM do to a fit; a context manager.

    While the block is `deferred`, the first one is only noted, and training, which asks for it, stops in order. A
    second one, or one elsewhere, raises KeyboardInterrupt there and then; so does the end of `grace`. At the end of the
    block the handlers that were found are put back, and the signal is passed on to its own: Python's raises
    KeyboardInterrupt, any other may do what it likes. Where that raises nothing, `FitInterrupted` is raised.

    Signals that are ignored, or are handled outside Python, stay so, and in other threads than the main one all do.

    Parameters
    ----------
    grace : float
        Seconds that training has to stop.
    saved : callable
        Says what is left of the fit, for the error.
    """

    def __init__(self, grace: float, saved: Callable[[], str]) -> None:
        self.grace, self._saved = grace, saved
        self._signal: signal.Signals | None = None
        self._deferred = self._closing = self._overdue = False
        self._before: dict[signal.Signals, Any] = {}
        # Of all ways to wake a thread this one may be used from within a signal's handler.
        self._told: queue.SimpleQueue[signal.Signals | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, name="strombus-grace", daemon=True)

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._signal is not None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Have the first signal wait until training, which asks whether one came, has stopped."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def obey(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self.asked:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            found = {number: signal.getsignal(number) for number in _SIGNALS}
            self._before = {number: one for number, one in found.items() if one not in (None, signal.SIG_IGN)}
            self._thread.start()
            for number in self._before:
                signal.signal(number, self._note)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._closing = True
        if self._thread.ident is not None:
            self._told.put(None)
            self._thread.join()
        for number, before in self._before.items():
            if signal.getsignal(number) == self._note:  # nobody has put his own in its place meanwhile
                signal.signal(number, before)
        if self._signal is not None:
            self._pass_on(self._signal, error)

    def _note(self, number: int, _: FrameType | None) -> None:
        """Take note of a signal; runs in the main thread, between any two of its instructions."""
        first = self._signal is None
        if first:
            self._signal = signal.Signals(number)
        if self._closing:
            return
        if not first or not self._deferred:
            raise KeyboardInterrupt
        self._told.put(self._signal)

    def _watch(self) -> None:
        """Send the signal again when training has not stopped in time."""
        number = self._told.get()
        if number is None:
            return
        try:
            self._told.get(timeout=self.grace)
        except queue.Empty:
            self._overdue = True
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, number)

    def _pass_on(self, number: signal.Signals, error: BaseException | None) -> None:
        before, text = self._before[number], self._text(number)
        if before is signal.default_int_handler and isinstance(error, KeyboardInterrupt):
            error.add_note(text)
            return
        cause = error.__cause__ if isinstance(error, KeyboardInterrupt) else error
        if callable(before):
            try:
                before(number, None)
            except BaseException as raised:
                raised.add_note(text)
                raise raised from cause
        raise FitInterrupted(text, number.name) from cause

    def _text(self, number: signal.Signals) -> str:
        late = (
            f". It did not stop by itself within {self.grace:g} s (option `grace` of CheckpointConfig)"
            if self._overdue
            else ""
        )
        return f"the fit was stopped by {number.name}: {self._saved()}{late}"
