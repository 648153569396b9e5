"""Results that bring along what their workers have logged: tasks and merges around others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from strombus.executors.base import Task
from strombus.stats import Ear, Listening, Said

__all__ = ["Heard", "heard", "merge_heard"]

_MOST = 100
"""Places of which a merged result tells."""


@dataclass(frozen=True)
class Heard:
    """A result, and for each place what was logged there meanwhile."""

    value: Any
    said: tuple[tuple[str, tuple[Said, ...]], ...] = ()


def heard(task: Task, listening: Listening) -> Task:
    """Return a task that gives the `Heard` result of `task`, under its name."""
    around = partial(_hear, task, listening)
    around.__name__ = around.__qualname__ = task.__name__  # type: ignore[attr-defined]
    return around


def merge_heard(merge: Callable[[Any, Any], Any]) -> Callable[[Heard, Heard], Heard]:
    """Return what merges `Heard` results as `merge` does their values."""
    return partial(_merge, merge)


def _hear(task: Task, listening: Listening, shared: Any, part: Any) -> Heard:
    with Ear(listening) as ear:
        value = task(shared, part)
        said = ear.take()
    return Heard(value, ((ear.place, said),) if said else ())


def _merge(merge: Callable[[Any, Any], Any], left: Heard, right: Heard) -> Heard:
    return Heard(merge(left.value, right.value), (left.said + right.said)[:_MOST])
