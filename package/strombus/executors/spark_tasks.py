"""What runs inside Spark's Python workers: tasks, merges and the results they send back."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from strombus.executors.base import Task
from strombus.executors.calls import Failure, dump, load, run_task
from strombus.executors.values import Packed, as_values

__all__ = [
    "KeyByGroup",
    "MergeGroup",
    "Outcome",
    "RemoteShared",
    "TaskOnPart",
    "fold",
    "open_outcome",
    "settle_garbage",
]

T = TypeVar("T")

YOUNG = 10_000
"""Objects outside the frozen ones that may be collected after every task."""

Outcome = tuple[int, Packed | Failure]
"""Position in the list and the packed result: Spark's own pickler knows no functions and classes of a script."""


@dataclass(frozen=True)
class RemoteShared(Generic[T]):
    """A shared value as a task sees it: a broadcast of a `Packed`."""

    broadcast: Any

    def get(self) -> T:
        """Return the value, loaded once in each process."""
        value: T = self.broadcast.value.get()
        return value

    def look(self, view: Callable[[T], Any]) -> Any:
        """Return ``view(value)``."""
        return view(self.get())

    def free(self) -> None:
        """Do nothing: the driver frees."""


@dataclass(frozen=True)
class TaskOnPart:
    """Run a task on partitions that hold pickled parts, or that are parts themselves.

    An error comes back as a value, because Spark would repeat it four times and then lose its type; lost
    executors remain Spark's to replace.

    Parameters
    ----------
    name : str
        What to call the task in Spark's pages.
    task : bytes
        The pickled task.
    shared : None, Shared or tuple of Shared
    threads : int
        Torch's threads while a task runs.
    numbers : mapping of int to int, optional
        For native partitions: the part's number by the index of its partition. Other partitions
        are left out. None where partitions hold pairs of part number and pickled part.
    """

    name: str
    task: bytes
    shared: Any
    threads: int
    numbers: Mapping[int, int] | None = None

    @classmethod
    def of(cls, task: Task, shared: Any, threads: int, numbers: Mapping[int, int] | None) -> TaskOnPart:
        """Pickle a task, and call it by its function's name."""
        name = str(getattr(task, "__qualname__", type(task).__name__))
        return cls(name, dump(task, "the task"), shared, threads, numbers)

    def __call__(self, index: int, items: Iterable[Any]) -> Iterator[Outcome]:
        if self.numbers is None:
            # All items must be read, or Spark ends the process, and with it every cache, after this task.
            for number, part in items:
                yield self._run(number, lambda part=part: load(part))  # type: ignore[misc]
        elif index in self.numbers:
            yield self._run(self.numbers[index], lambda: iter(items))
        settle_garbage()

    def _run(self, number: int, part: Callable[[], Any]) -> Outcome:
        def run(shared: Any, _: None) -> Any:
            return Packed.of(load(self.task)(shared, part()), "the result")

        return number, run_task(run, None, number, lambda: as_values(self.shared), self.threads)


def settle_garbage() -> None:
    """Take what this process keeps, such as torch, out of the full collection that PySpark makes after every task.

    That collection delays the next task: by some 20 ms for PySpark and NumPy alone, by 100 ms and more for torch.
    """
    if len(gc.get_objects()) > YOUNG:
        gc.unfreeze()
        gc.collect()
        gc.freeze()


def open_outcome(outcome: Outcome) -> Any:
    """Return the result of an outcome, or raise its `TaskError`."""
    _, result = outcome
    if isinstance(result, Failure):
        raise result.to_error()
    return load(result.head, result.buffers)


def fold(outcomes: Iterable[Outcome], merge: Callable[[Any, Any], Any]) -> Any:
    """Merge results from left to right."""
    results = (open_outcome(outcome) for outcome in outcomes)
    merged = next(results)
    for result in results:
        merged = merge(merged, result)
    return merged


@dataclass(frozen=True)
class KeyByGroup:
    """Key an outcome by the group of the merge tree that takes it."""

    fan_in: int

    def __call__(self, outcome: Outcome) -> tuple[int, Outcome]:
        return outcome[0] // self.fan_in, outcome


@dataclass(frozen=True)
class MergeGroup:
    """Merge the outcomes of a group in the order of their positions, in which a shuffle does not deliver them.

    Shuffled partition ``j`` holds the pairs ``(j, outcome)`` of group ``j``; the result is outcome ``j``
    of the next level.
    """

    merge: bytes

    def __call__(self, group: int, items: Iterable[tuple[int, Outcome]]) -> Iterator[Outcome]:
        outcomes = sorted((outcome for _, outcome in items), key=lambda outcome: outcome[0])
        failures = (result for _, result in outcomes if isinstance(result, Failure))
        yield group, next(failures, None) or self._merge(outcomes)
        settle_garbage()

    def _merge(self, outcomes: list[Outcome]) -> Packed | Failure:
        try:
            return Packed.of(fold(outcomes, load(self.merge)), "the merged result")
        except Exception as error:
            return Failure.of(error)
