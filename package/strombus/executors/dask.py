"""Run on Dask: tasks as futures, shared values as scattered data, a gang as pinned tasks."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from distributed import Client, Future

from strombus.errors import ConfigurationError, ExecutorError, StrombusWarning
from strombus.executors.base import Control, Executor, Member, Shared, Task, merge_plan
from strombus.executors.calls import Failure, dump
from strombus.executors.dask_apart import copier
from strombus.executors.dask_gang import (
    Terms,
    alive_workers,
    run_gang,
    silent_workers,
    still_given_up,
    warn_of_open_channel,
)
from strombus.executors.dask_tasks import by_value, merge_group, probe_versions, run_part, view_value
from strombus.executors.values import Packed, as_tuple
from strombus.types import Capacity, Event, NativePartition

__all__ = ["DaskExecutor", "DaskShared"]

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4
"""Parts in flight or waiting to be yielded, in multiples of the slots."""
PATIENCE = 30.0
"""Seconds to wait for a first worker."""
LOOK = 5.0
"""Seconds between two looks at which workers say nothing."""
TRIES = 4
"""Times that lost data is made again before the job is given up."""


class RemoteShared(Generic[T]):
    """What a `DaskShared` is on a worker when it travels inside a part or payload."""

    def __init__(self, future: Future) -> None:
        self._future = future

    def get(self) -> T:
        """Return the value."""
        value = self._future.result()
        found: T = value.get() if isinstance(value, Packed) else _checked(value)
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
        self._future: Future | None = make()

    @property
    def future(self) -> Future:
        """The value's future, to pass to tasks."""
        if self._freed or self._future is None:
            raise ExecutorError("this shared value was freed; share it again")
        return self._future

    def renew(self) -> None:
        """Make the value again, if the cluster has lost it, or if it was freed and one made from it was lost."""
        if self._future is None or self._future.status in ("cancelled", "lost"):
            self._future = self._make()

    def get(self) -> T:
        """Return the value: the driver's own, or that of the future; raises the task's error."""
        self.future  # noqa: B018 - a freed value is an error here too
        if self._value is not None:
            return self._value[0]
        found: T = _checked(self._executor.collect(lambda: self.future, [self]))
        return found

    def look(self, view: Callable[[T], R]) -> R:
        """Return ``view(value)``, computed on the worker that holds the value."""
        call = dump(view, "view")
        make = self._executor.submitter(view_value, "look", call)
        # Before the next round, which may wait for the same value: the driver looks while that one works.
        found: R = _checked(self._executor.collect(lambda: make(self.future, priority=10), [self]))
        return found

    def free(self) -> None:
        """Release the value; a second call does nothing.

        How it was made is remembered as long as a value that was made from it: that one can be made again.
        """
        self._freed, self._future, self._value = True, None, None

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteShared, (self.future,)


class DaskExecutor(Executor):
    """Run tasks and gangs on a Dask cluster through its client.

    A slot is one worker process, whatever its number of threads: torch's random state and thread count
    belong to the process, so tasks of one process run one after another with all of its threads.

    `map_reduce` does not wait; a round may take the result of the round before. Such a chain lets the
    scheduler make lost results again, and grows with every round: now and then, `get` the result and `share` it.

    Parameters
    ----------
    client : distributed.Client
        A synchronous client; it stays open and unchanged.
    owned : sequence
        What `close` closes, in order: for a cluster that was made for this executor.
    """

    name = "dask"
    survives = True

    def __init__(self, client: Client, owned: Sequence[Any] = ()) -> None:
        if client.asynchronous:
            raise ConfigurationError(
                "Strombus needs a synchronous Dask client, got one with asynchronous=True; "
                "make another with Client(address) outside the event loop"
            )
        self.client = client
        self._owned = list(owned)
        self._given_up: dict[str, float] = {}
        self._turn = uuid.uuid4().int
        self._direct: bool | None = None
        self._silent, self._looked = set[str](), 0.0

    def capacity(self) -> Capacity:
        """Return the worker processes that take tasks now, but for those that say nothing or where a member hangs."""
        self._looked = 0.0
        workers = self._alive()
        hosts = {urlsplit(address).hostname or address for address in workers}
        return Capacity(len(workers), tuple(sorted(hosts)), max(1, min(workers.values(), default=1)))

    def share(self, value: T) -> Shared[T]:
        """Put `value` on one worker; the others fetch it from there, each process once."""
        packed = Packed.of(value)
        return DaskShared(self, lambda: self.scatter([packed])[0], [value])

    def scatter(self, values: list[Packed]) -> list[Future]:
        """Put packed values on workers, spread over them."""
        workers = self._workers()
        if self._direct is None:
            self._direct = all(_reachable(worker) for worker in workers[:2])
        among = workers if self._left_out() else None  # the scheduler knows best who has come and gone since
        try:
            return list(self.client.scatter(values, workers=among, hash=False, direct=self._direct))
        except (TimeoutError, OSError) as error:
            raise ExecutorError(f"a shared value could not be brought to the Dask workers: {error}") from error

    def _workers(self) -> list[str]:
        """Return the workers' addresses; wait for the first, which may just be starting again."""
        deadline = time.monotonic() + PATIENCE
        while not (workers := list(self._alive())):
            if time.monotonic() > deadline:
                raise ExecutorError(
                    f"the Dask cluster had no worker for {PATIENCE:g} s; start some, or wait for them with "
                    "client.wait_for_workers(1)"
                )
            time.sleep(0.1)
        return workers

    def _alive(self) -> dict[str, int]:
        """Return the threads of the workers that are there; now and then see which say nothing, and leave them out."""
        if time.monotonic() - self._looked > LOOK:
            self._silent, self._looked = silent_workers(self.client), time.monotonic()
        found, without = alive_workers(self.client, running=True), self._left_out()
        return {worker: threads for worker, threads in found.items() if worker not in without}

    def _left_out(self) -> set[str]:
        return self._silent | still_given_up(self._given_up)

    def submitter(self, function: Callable[..., Any], name: str, *fixed: Any) -> Callable[..., Future]:
        """Return a function that submits ``function(*fixed, *more)`` under a name that the dashboard shows."""

        def submit(*more: Any, **placement: Any) -> Future:
            key = f"strombus-{name}-{uuid.uuid4().hex}"
            if self._left_out():  # the scheduler would put tasks on workers that hang, too
                placement |= {"workers": self._workers(), "allow_other_workers": False}
            return self.client.submit(function, *fixed, *more, key=key, pure=False, retries=2, **placement)

        return submit

    def _start_parts(
        self, task: Task, parts: Sequence[Any], shared: Shared[Any] | tuple[Shared[Any], ...] | None, workers: list[str]
    ) -> Callable[[int], Future]:
        """Return a function that submits part i: to worker i, where there are as many workers as parts."""
        name = getattr(task, "__name__", type(task).__name__)
        submit = self.submitter(run_part, name, dump(task, "task"))
        many, handles = isinstance(shared, tuple), as_tuple(shared)
        pinned = len(parts) <= len(workers)

        def start(number: int) -> Future:
            place: dict[str, Any] = {}
            if pinned:
                slot = getattr(parts[number], "rank", number) + self._turn
                place = {"workers": [workers[slot % len(workers)]], "allow_other_workers": True}
            blob, native = self._describe(parts[number], number)
            return submit(number, blob, native, many, *(_future_of(one) for one in handles), **place)

        return start

    def _describe(self, part: Any, number: int, what: str = "part") -> tuple[bytes | None, Any]:
        """Return the part as bytes, or as a future of the partition it stands for."""
        if not isinstance(part, NativePartition):
            return dump(part, f"{what} {number}"), None
        if part.engine != "dask":
            raise ConfigurationError(
                f"partition {part.index} is held by {part.engine}, which Dask cannot open; use backend={part.engine!r}"
            )
        return None, part.handle if isinstance(part.handle, Future) else self.client.compute(part.handle)

    def map(
        self, task: Task, parts: Sequence[Any], shared: Shared[Any] | tuple[Shared[Any], ...] | None = None
    ) -> Iterator[Any]:
        """Yield ``task(shared_value, part)`` for each part, in order, a bounded number ahead of the consumer."""
        if not len(parts):
            return
        workers, handles = self._workers(), as_tuple(shared)
        start, ahead = self._start_parts(task, parts, shared, workers), AHEAD * len(workers)
        running: dict[int, Future] = {}
        try:
            for number in range(len(parts)):
                for later in range(number + len(running), min(len(parts), number + ahead)):
                    running[later] = start(later)
                yield _checked(self.collect(partial(start, number), handles, running.pop(number)), number)
        finally:
            if running:
                self.client.cancel(list(running.values()))

    def collect(self, start: Callable[[], Future], handles: Sequence[Any], future: Future | None = None) -> Any:
        """Return a task's result, or its failure; start it again when what it was given died with a worker.

        Parameters
        ----------
        start : callable
            Submits the task; called after the lost ones among `handles` were made again.
        future : Future, optional
            The task, when it has been submitted already.
        """
        for _ in range(TRIES):
            try:
                return self._gather(future or start())
            except CancelledError as error:
                lost, future = error, None
            except ExecutorError:
                raise
            except Exception as error:
                return Failure.of(error)
            try:
                for handle in handles:
                    handle.renew()
            except ExecutorError as error:
                return Failure.of(error)
        text = f"its workers died {TRIES} times, with what it was given (out of memory?): {lost}"
        return Failure.of(ExecutorError(text))

    def _gather(self, future: Future) -> Any:
        """Wait for a task as long as there are workers that could run it."""
        while True:
            try:
                future.exception(timeout=PATIENCE)  # waits, and brings no data
                return self.client.gather(future, direct=self._direct)
            except TimeoutError:
                self._workers()

    def map_reduce(
        self,
        task: Task,
        parts: Sequence[Any],
        merge: Callable[[R, R], R],
        shared: Shared[Any] | tuple[Shared[Any], ...] | None = None,
        *,
        depth: int = 2,
        finish: Callable[[R], Any] | None = None,
    ) -> Shared[Any]:
        """Submit the tasks and the tree that merges them; return at once. Errors come from ``get`` and ``look``."""
        if not len(parts):
            raise ConfigurationError("map_reduce needs at least one part, got none")
        plan = merge_plan(len(parts), depth)
        joins = [self.submitter(merge_group, "merge", dump(merge, "merge"), None) for _ in plan]
        if joins:
            # Finished by the task that merges last: one trip to the scheduler less in every round.
            joins[-1] = self.submitter(merge_group, "merge", dump(merge, "merge"), finish and dump(finish, "finish"))
        end = None if joins or finish is None else self.submitter(view_value, "finish", dump(finish, "finish"))

        def make() -> Future:
            for handle in as_tuple(shared):
                handle.renew()  # type: ignore[attr-defined]
            start = self._start_parts(task, parts, shared, self._workers())
            level = [start(number) for number in range(len(parts))]
            for join, groups in zip(joins, plan, strict=True):
                level = [join(*(level[i] for i in group)) if len(group) > 1 else level[group[0]] for group in groups]
            return level[0] if end is None else end(level[0])

        return DaskShared(self, make)

    def gang(
        self,
        body: Callable[[Member, Any, Any], Any],
        payloads: Sequence[Any],
        shared: Shared[Any] | None = None,
        *,
        timeout: float,
        on_event: Callable[[int, Event], None] | None = None,
        control: Control | None = None,
        attempt: int = 0,
        survive: bool = False,
    ) -> list[Any]:
        """Run a gang, one member in each of as many worker processes; two gangs on a cluster queue."""
        if attempt == 0:
            warn_of_open_channel(self.client.scheduler.address)
        future = None if shared is None else _future_of(shared)
        described = [self._describe(payload, rank, "payload") for rank, payload in enumerate(payloads)]
        terms = Terms(timeout, attempt, survive, self._given_up, copier(self.client, shared, self._direct))
        return run_gang(self.client, body, described, future, terms, on_event, control)

    def check(self) -> None:
        """Make sure that every worker can import Strombus; warn where versions differ from the driver's."""
        self._workers()
        answers = self.client.run(by_value(probe_versions), on_error="return")
        found = {worker: answer for worker, answer in answers.items() if not isinstance(answer, OSError)}  # it has left
        lacking = sorted(worker for worker, versions in found.items() if "strombus" not in (versions or {}))
        if lacking:
            raise ExecutorError(
                f"Strombus is not installed on worker {', '.join(lacking)}: run `pip install strombus` there, "
                "in the environment that starts the worker"
            )
        own = probe_versions()
        for worker, versions in sorted(found.items()):
            differ = [
                f"{name} {versions.get(name)} (driver: {own[name]})" for name in own if versions.get(name) != own[name]
            ]
            if differ:
                warnings.warn(f"Dask worker {worker} has {', '.join(differ)}", StrombusWarning, stacklevel=2)

    def links(self) -> dict[str, str]:
        """Return the address of Dask's dashboard, where the scheduler has one."""
        with contextlib.suppress(Exception):  # not of the contract: a client that has lost its scheduler has none
            return {"Dask dashboard": link} if (link := self.client.dashboard_link) else {}
        return {}

    def close(self) -> None:
        """Close the cluster that was made for this executor; a client that was given stays open."""
        owned, self._owned = self._owned, []
        for one in owned:
            with contextlib.suppress(TimeoutError, OSError):
                one.close()


def _future_of(shared: Any) -> Future:
    if not isinstance(shared, DaskShared):
        raise ConfigurationError(f"shared must come from share() or map_reduce() of this executor, got {shared!r}")
    # A freed value that was made again for the sake of another one has a future that only this one uses.
    return shared.future if shared._future is None else shared._future


def _checked(result: Any, number: int | None = None) -> Any:
    """Return a result, or raise the failure that came in its place."""
    if not isinstance(result, Failure):
        return result
    if result.part is None and number is not None:
        result = Failure(**{**vars(result), "part": number})
    raise result.to_error()


def _reachable(worker: str) -> bool:
    """Say whether this process can dial a worker, so that large values need not pass the scheduler."""
    parsed = urlsplit(worker)
    if parsed.scheme not in ("tcp", "tls") or parsed.port is None:
        return parsed.scheme == "inproc"
    try:
        socket.create_connection((parsed.hostname, parsed.port), timeout=2.0).close()
    except OSError:
        return False
    return True
