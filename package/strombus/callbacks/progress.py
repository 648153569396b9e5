"""A progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm

from strombus.callbacks.base import Callback, EpochRecord, FitPlan
from strombus.masters.job import Progress

__all__ = ["ProgressBar"]


class ProgressBar(Callback):
    """Show how far a fit is: a bar of examples, or a line for each epoch when `file` is no terminal.

    Parameters
    ----------
    file : text stream, optional
        Standard error by default.
    """

    passive = True

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file if file is not None else sys.stderr
        self._bar: Any = None
        self._plan: FitPlan | None = None
        self._epochs = 0

    def on_fit_start(self, plan: FitPlan) -> None:
        self._plan, self._epochs = plan, 0
        workers = f"{plan.workers} worker{'s' * (plan.workers != 1)}"
        if self._file.isatty():
            self._bar = tqdm(
                total=plan.epochs * plan.examples,
                unit=" examples",
                unit_scale=True,
                file=self._file,
                dynamic_ncols=True,
            )
            self._bar.set_description(f"training on {plan.backend}, {workers}")
        else:
            self._write(f"training {plan.examples} examples on {plan.backend}, {workers}, {plan.epochs} epochs")

    def on_round(self, progress: Progress) -> None:
        if self._bar is not None:
            figures = "".join(f", {name} {value:.3g}" for name, value in progress.figures.items())
            self._bar.set_postfix_str(f"score {progress.score:.4f}{figures}", refresh=False)
            self._bar.update(progress.examples)

    def on_epoch_end(self, record: EpochRecord) -> None:
        self._epochs += 1
        figures = "".join(f", validation {name} {value:.4f}" for name, value in record.validation.items())
        speed = record.examples / record.seconds if record.seconds else 0.0
        total = self._plan.epochs if self._plan else self._epochs
        self._write(
            f"epoch {self._epochs}/{total}: score {record.score:.4f}{figures} "
            f"({record.seconds:.1f} s, {speed:,.0f} examples/s)"
        )

    def on_fit_end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._file)
        else:
            self._file.write(line + "\n")
            self._file.flush()
