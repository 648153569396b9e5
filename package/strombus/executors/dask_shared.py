"""Values on a Dask cluster: scattered, or the future results of reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from distributed import Future

from strombus.errors import ConfigurationError, ExecutorError
from strombus.executors.calls import Failure, dump
from strombus.executors.dask_tasks import view_value
from strombus.executors.values import Packed

if TYPE_CHECKING:
    from strombus.executors.dask import DaskExecutor

__all__ = ["DaskShared", "checked", "future_of"]

T = TypeVar("T")
R = TypeVar("R")


class RemoteShared(Generic[T]):
    """What a `DaskShared` is on a worker when it travels inside a part or payload."""

    def __init__(self, future: Future) -> None:
        self._future = future

    def get(self) -> T:
        """Return the value."""
        value = self._future.result()
        found: T = value.get() if isinstance(value, Packed) else checked(value)
        return found


class DaskShared(Generic[T]):
    """A value on the cluster: scattered, or the future result of a reduction.

    Parameters
    ----------
    make : callable
        Brings the value to the cluster; called again when the value was lost with its worker.
    value : optional
        One-element list with the driver's own copy, if it has one.
    """

    def __init__(self, executor: DaskExecutor, make: Callable[[], Future], value: list[T] | None = None) -> None:
        self._executor = executor
        self._make = make
        self._value = value
        self._freed = False
        self._losses = executor.placement.losses
        self._future: Future | None = make()

    @property
    def future(self) -> Future:
        """The value's future, to pass to tasks."""
        if self._freed or self._future is None:
            raise ExecutorError("this shared value was freed; share it again")
        return self._future

    def renew(self) -> None:
        """Make the value again, if the cluster has lost it, or if it was freed and one made from it was lost."""
        future, losses = self._future, self._executor.placement.losses
        stranded = future is not None and not future.done() and losses != self._losses  # it waits for one that is gone
        if future is None or future.status in ("cancelled", "lost") or stranded:
            self._losses = losses
            self._future = self._make()

    def get(self) -> T:
        """Return the value: the driver's own, or that of the future; raises the task's error."""
        self.future  # noqa: B018 - a freed value is an error here too
        if self._value is not None:
            return self._value[0]
        found: T = checked(self._executor.collect(lambda: self.future, [self], losses=self._losses))
        return found

    def look(self, view: Callable[[T], R]) -> R:
        """Return ``view(value)``, computed on the worker that holds the value."""
        call = dump(view, "view")
        make = self._executor.submitter(view_value, "look", call)
        # Before the next round, which may wait for the same value: the driver looks while that one works.
        found: R = checked(self._executor.collect(lambda: make(self.future, priority=10), [self], losses=self._losses))
        return found

    def free(self) -> None:
        """Release the value; a second call does nothing.

        How it was made is remembered as long as a value that was made from it: that one can be made again.
        """
        self._freed, self._future, self._value = True, None, None

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteShared, (self.future,)


def future_of(shared: Any) -> Future:
    if not isinstance(shared, DaskShared):
        raise ConfigurationError(f"shared must come from share() or map_reduce() of this executor, got {shared!r}")
    # A freed value that was made again for the sake of another one has a future that only this one uses.
    return shared.future if shared._future is None else shared._future


def checked(result: Any, number: int | None = None) -> Any:
    """Return a result, or raise the failure that came in its place."""
    if not isinstance(result, Failure):
        return result
    if result.part is None and number is not None:
        result = Failure(**{**vars(result), "part": number})
    raise result.to_error()
