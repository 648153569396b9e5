"""How far a fit is, as a table that a notebook keeps up to date."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from strombus.callbacks.base import Callback, EpochRecord, FitPlan
from strombus.callbacks.progress import ProgressBar
from strombus.callbacks.tables import epoch_table
from strombus.masters.job import Progress

__all__ = ["LiveTable", "in_notebook", "show_progress"]

_EVERY = 0.5
"""Seconds between two times that the table is sent to the notebook within an epoch."""


def show_progress() -> Callback:
    """Return what shows a fit's progress here: a `LiveTable` in a notebook, a `ProgressBar` elsewhere."""
    return LiveTable() if in_notebook() else ProgressBar()


def in_notebook() -> bool:
    """Say whether a notebook's kernel runs this program; who runs in one has imported IPython."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and hasattr(get_shell(), "kernel")


class LiveTable(Callback):
    """Show how far a fit is in a notebook: a bar, and a row for each epoch, with throughput and what was sent."""

    passive = True

    def __init__(self) -> None:
        self._plan: FitPlan | None = None
        self._start()

    def _start(self) -> None:
        self._records: list[EpochRecord] = []
        self._latest: Progress | None = None
        self._trained = self._of_epoch = 0
        self._began = self._epoch_began = self._shown = time.monotonic()
        self._ended = ""

    def on_fit_start(self, plan: FitPlan) -> None:
        from IPython.display import display

        self._start()
        self._plan = plan
        self._handle: Any = display(self, display_id=True)

    def on_round(self, progress: Progress) -> None:
        self._latest = progress
        self._trained += progress.examples
        self._of_epoch += progress.examples
        if time.monotonic() - self._shown > _EVERY:
            self._show()

    def on_epoch_end(self, record: EpochRecord) -> None:
        self._records.append(record)
        self._latest, self._of_epoch, self._epoch_began = None, 0, time.monotonic()
        self._show()

    def on_error(self, error: Exception) -> None:
        self._ended = f"ended by {type(error).__name__}"

    def on_fit_end(self) -> None:
        plan = self._plan
        whole = plan is not None and len(self._records) >= plan.epochs
        self._ended = f"{self._ended or ('ended' if whole else 'stopped')} after {time.monotonic() - self._began:.1f} s"
        self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        if self._handle is not None:
            self._handle.update(self)

    def __repr__(self) -> str:
        return f"{self._head()}: {len(self._records)} epochs ended"

    def _head(self) -> str:
        if self._plan is None:
            return "a fit that has not begun"
        plan = self._plan
        workers = f"{plan.workers} worker{'s' * (plan.workers != 1)}"
        return f"training on {plan.backend}, {workers}, {plan.examples:,} rows, {plan.epochs} epochs"

    def _repr_html_(self) -> str:
        total = 0 if self._plan is None else self._plan.epochs * self._plan.examples
        bar = f'<progress value="{min(self._trained, total)}" max="{max(total, 1)}" style="width: 20em;"></progress>'
        status = self._ended or f"{time.monotonic() - self._began:.0f} s"
        figures = "" if self._latest is None else "".join(f", {n} {v:.3g}" for n, v in self._latest.figures.items())
        return (
            f"<div><strong>{escape(self._head())}</strong></div>"
            f"<div>{bar} {escape(status)}{escape(figures)}</div>{epoch_table(self._records, self._running())}"
        )

    def _running(self) -> list[str]:
        """Return the cells of the epoch that is being trained."""
        if self._latest is None:
            return []
        seconds = time.monotonic() - self._epoch_began
        speed = f"{self._of_epoch / seconds:,.0f}" if seconds else ""
        return [str(self._latest.epoch + 1), f"{self._latest.score:.4f}", speed, f"{seconds:.2f}"]
