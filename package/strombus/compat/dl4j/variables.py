"""What a driver program shares with its tasks: broadcast values and accumulators."""

from __future__ import annotations

import pickle
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from distributed import Future

from strombus.errors import ConfigurationError
from strombus.executors.dask import DaskShared

__all__ = ["Accumulator", "Broadcast", "Reports", "Ticket"]


class Broadcast:
    """A value that every worker process fetches and loads once (PySpark: ``Broadcast``).

    Made by ``DaskSparkContext.broadcast``. Functions of an RDD use it as it is; they must not change the value.
    """

    def __init__(self, value: Any, shared: DaskShared[Any] | None = None) -> None:
        self._value = value
        self._shared = shared
        self._destroyed = False

    @property
    def value(self) -> Any:
        """The value, on the driver and in tasks."""
        self._check()
        return self._value

    @property
    def future(self) -> Future:
        """The value's future, an input of the tasks that use it."""
        self._check()
        if self._shared is None:
            raise ConfigurationError("a broadcast value can be handed to tasks by the driver alone")
        self._shared.renew()
        return self._shared.future

    def unpersist(self, blocking: bool = False) -> None:
        """Do nothing: Dask's workers keep one copy, and the others as long as tasks use them."""

    def destroy(self, blocking: bool = False) -> None:
        """Release the value, here and on the cluster; using it later is an error."""
        if self._shared is not None:
            self._shared.free()
        self._destroyed, self._value = True, None

    def _check(self) -> None:
        if self._destroyed:
            raise ConfigurationError("this broadcast value was destroyed; broadcast it again")

    def __reduce__(self) -> tuple[Any, ...]:
        self._check()
        return Broadcast, (self._value,)


class _Sum:
    """Numbers, added."""

    def __init__(self, zero: Any) -> None:
        self._zero = zero

    def zero(self, value: Any) -> Any:
        return self._zero

    def addInPlace(self, value: Any, term: Any) -> Any:
        return value + term


class Ticket(NamedTuple):
    """What a task must know of an accumulator."""

    id: str
    topic: str
    zero: Any
    param: Any


class Accumulator:
    """A value that tasks add to and the driver reads (PySpark: ``Accumulator``).

    Made by ``DaskSparkContext.accumulator``. A task's terms count once, when it has succeeded, however often it ran;
    a transformation that is computed by two actions counts twice, as on Spark.
    """

    def __init__(self, ticket: Ticket, start: Any = None, collect: Callable[[], None] | None = None) -> None:
        self.ticket = ticket
        self._collect = collect
        self._value = ticket.zero if collect is None else start

    @property
    def value(self) -> Any:
        """The sum so far; of the driver alone."""
        if self._collect is None:
            raise ConfigurationError("an accumulator's value can be read by the driver alone; tasks add to it")
        self._collect()
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        if self._collect is None:
            raise ConfigurationError("an accumulator's value can be set by the driver alone; tasks add to it")
        self._collect()
        self._value = value

    def add(self, term: Any) -> None:
        """Add a term."""
        self._value = self.ticket.param.addInPlace(self._value, term)

    def __iadd__(self, term: Any) -> Accumulator:
        self.add(term)
        return self

    def taken(self) -> Any:
        """Return what this task has added."""
        return self._value

    def __repr__(self) -> str:
        return f"Accumulator({self._value!r})"


class Reports:
    """What tasks have added to the accumulators of one context."""

    def __init__(self) -> None:
        self.topic = f"strombus-accumulators-{uuid.uuid4().hex}"
        self._accumulators: dict[str, Accumulator] = {}
        self._waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._seen: set[str] = set()
        self._lock = threading.RLock()

    def open(self, start: Any, param: Any = None) -> Accumulator:
        """Make an accumulator; `param` has ``zero(value)`` and ``addInPlace(value, term)``, numbers need none."""
        if param is None:
            if not isinstance(start, int | float | complex):
                raise TypeError(f"an accumulator of {type(start).__name__} needs accum_param, which says how to add")
            param = _Sum(type(start)(0))
        ticket = Ticket(uuid.uuid4().hex, self.topic, param.zero(start), param)
        made = self._accumulators[ticket.id] = Accumulator(ticket, start, self.collect)
        return made

    def receive(self, event: tuple[float, Any]) -> None:
        """Take a task's report; in Dask's event loop."""
        self._waiting.put(event[1])

    def collect(self) -> None:
        """Add what has come, in the order of partitions, each task's report once."""
        with self._lock:
            reports = map(pickle.loads, self._take())
            found = {report[0]: report for report in reports if report[0] not in self._seen}
            self._seen |= found.keys()
            for _, _, updates in sorted(found.values(), key=lambda report: (report[1], report[0])):
                for name, term in updates:
                    self._accumulators[name].add(term)

    def _take(self) -> Iterator[bytes]:
        while True:
            try:
                yield self._waiting.get_nowait()
            except queue.Empty:
                return
