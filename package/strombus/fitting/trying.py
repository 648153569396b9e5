"""A dry run: what a fit would do, for a few minibatches on every worker, and without a trace."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from strombus.callbacks import Callback, EarlyStopping, MetricLogger
from strombus.data import Source, open_source
from strombus.data.first import FirstRows, first_of
from strombus.errors import ConfigurationError, kind_of
from strombus.executors.base import Executor
from strombus.exporting import readable_source
from strombus.fitting.result import FitResult
from strombus.masters.base import TrainingMaster
from strombus.stats import TrainingStats

__all__ = ["check_steps", "try_out"]

logger = logging.getLogger(__name__)

_STEPS = 2
"""Minibatches of each worker where no number is given."""
_WRITERS = (MetricLogger, EarlyStopping)
"""Callbacks whose work is to keep what happens."""


def check_steps(fast_dev_run: Any) -> int:
    """Return the minibatches that each worker tries; 0 for a fit that is none."""
    if isinstance(fast_dev_run, bool):
        return _STEPS if fast_dev_run else 0
    if not isinstance(fast_dev_run, int) or fast_dev_run < 1:
        raise ConfigurationError(
            f"fast_dev_run must be True, False or a number of minibatches of at least 1, got {kind_of(fast_dev_run)} "
            f"{fast_dev_run!r}"
        )
    return fast_dev_run


def try_out(
    trainer: Any,
    steps: int,
    data: Any,
    validation: Any,
    callbacks: Sequence[Callback],
    progress: bool,
) -> FitResult:
    """Train and validate on the first rows with a copy of everything that training changes; say what was tried.

    Parameters
    ----------
    trainer : Trainer
        Stays as it is, with its network and its statistics.
    steps : int
        Minibatches of each worker, where there are rows for as many.
    """
    master, executor = trainer.master, trainer.executor
    workers = master.count_workers(executor.capacity()) or 1
    each = steps * master.batch_size_per_worker
    rows = workers * each
    dry = copy.copy(trainer)
    carried = trainer._carried
    dry.network, dry.master, dry.stats = copy.deepcopy(trainer.network), _without_checkpoints(master), TrainingStats()
    dry._carried, dry._readable = carried, partial(_first_readable, rows, each)
    kept = [callback for callback in callbacks if not isinstance(callback, _WRITERS)]
    given = [None if one is None else first_of(open_source(one), rows, executor) for one in (data, validation)]
    result: FitResult = dry.fit(given[0], 1, given[1], kept, progress=False)
    said = _describe(result, executor.name, workers, [one for one in callbacks if one not in kept])
    logger.info("%s", said)
    if progress:
        sys.stderr.write(said + "\n")
    return replace(result, network=trainer.network, tried=said)


def _without_checkpoints(master: TrainingMaster) -> TrainingMaster:
    """Return a copy, with hooks of its own, that needs no checkpoint to go back to."""
    changes: dict[str, Any] = {"on_nonfinite": "raise"} if master.on_nonfinite == "rollback" else {}
    if getattr(master, "max_failures", None):
        changes["max_failures"] = 0
    return copy.deepcopy(master).model_copy(update=changes)


@contextmanager
def _first_readable(rows: int, each: int, data: Any, executor: Executor, **options: Any) -> Iterator[Source]:
    with readable_source(data, executor, **options) as source:
        yield FirstRows(source, rows, each)


def _describe(result: FitResult, backend: str, workers: int, left_out: Sequence[Callback]) -> str:
    """Say what was tried; `workers` are those that were asked for."""
    if not result.epochs:
        return f"dry run on {backend}: there was nothing to train, the data holds no examples"
    validation = "".join(f", {name} {value:.4f}" for name, value in result.epochs[-1].validation.items())
    validated = f"; validated{validation.removeprefix(',')}" if validation else "; nothing was validated"
    names = ", ".join(type(callback).__name__ for callback in left_out)
    return (
        f"dry run on {backend}: {workers} worker{'s' * (workers != 1)} trained {result.minibatches} minibatches, "
        f"{result.examples} rows in all, in {result.seconds:.1f} s, score {result.score:.4f}{validated}"
        f"{f'; left out {names}' if names else ''}; the network is as it was, and nothing was kept"
    )
