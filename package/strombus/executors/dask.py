"""Run on Dask: tasks as futures, shared values as scattered data, a gang as pinned tasks."""

from __future__ import annotations

import contextlib
import copy
import socket
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from distributed import Client, Future

from strombus.errors import ConfigurationError, ExecutorError, StrombusWarning, reason_of
from strombus.executors.base import Control, Executor, Member, Shared, Task, merge_plan
from strombus.executors.calls import Failure, dump
from strombus.executors.dask_apart import copier
from strombus.executors.dask_gang import Terms, run_gang, warn_of_open_channel
from strombus.executors.dask_placement import PATIENCE, Placement, leave_slot
from strombus.executors.dask_shared import DaskShared, checked, future_of
from strombus.executors.dask_tasks import by_value, merge_group, probe_versions, run_part, view_value
from strombus.executors.values import Packed, as_tuple
from strombus.types import Capacity, Event, NativePartition

__all__ = ["DaskExecutor", "DaskShared"]

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4
"""Parts in flight or waiting to be yielded, in multiples of the slots."""
WATCH = 2.0
"""Seconds between two looks at whether chosen workers are still there."""
TRIES = 4
"""Times that lost data is made again before the job is given up."""


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
    workers : sequence of str or int, optional
        Addresses or names of the workers to use; all by default. One that is started again has its name still.
    resources : mapping of str to float, optional
        Dask resources, such as ``{"GPU": 1}``: workers that have as much are used, and each task and member takes it.

    Raises
    ------
    ConfigurationError
        When there is none of the workers asked for.

    Within a task of the same cluster the task gives up its slot (``distributed.secede``) when the executor is made:
    its worker is a slot like the others, and nothing waits for the one that waits.
    """

    name = "dask"
    survives = True

    def __init__(
        self,
        client: Client,
        owned: Sequence[Any] = (),
        *,
        workers: Sequence[str | int] | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        if client.asynchronous:
            raise ConfigurationError(
                "Strombus needs a synchronous Dask client, got one with asynchronous=True; "
                "make another with Client(address) outside the event loop"
            )
        if isinstance(workers, str) or (workers is not None and not workers):
            raise ConfigurationError(f"workers must be a list of addresses or names of workers, got {workers!r}")
        self.client = client
        self._owned = list(owned)
        self._turn = uuid.uuid4().int
        self._direct: bool | None = None
        self.placement = Placement(
            client, None if workers is None else frozenset(workers), dict(resources or {}), turn=self._turn
        )
        self.placement.check()
        leave_slot(client)

    def capacity(self) -> Capacity:
        """Return the worker processes that take tasks now, but for those that say nothing or where a member hangs."""
        self.placement.refresh()
        workers = self.placement.usable()
        hosts = {urlsplit(address).hostname or address for address in workers}
        return Capacity(len(workers), tuple(sorted(hosts)), max(1, min(workers.values(), default=1)))

    def split(self, count: int) -> tuple[DaskExecutor, DaskExecutor | None]:
        """Return executors on `count` of the workers and on the others; see `Executor.split`."""
        if len(self.placement.there()) <= count:
            return self, None
        first, second = copy.copy(self), copy.copy(self)
        for one, part in ((first, slice(None, count)), (second, slice(count, None))):
            one._owned, one.placement = [], self.placement.portion(part)
        return first, second

    def share(self, value: T) -> Shared[T]:
        """Put `value` on one worker; the others fetch it from there, each process once."""
        packed = Packed.of(value)
        return DaskShared(self, lambda: self.scatter([packed])[0], [value])

    def scatter(self, values: list[Packed]) -> list[Future]:
        """Put packed values on workers, spread over them."""
        workers = self.placement.there()
        if self._direct is None:
            self._direct = all(_reachable(worker) for worker in workers[:2])
        among = self.placement.rules().get("workers")  # else the scheduler knows best who has come and gone since
        try:
            return list(self.client.scatter(values, workers=among, hash=False, direct=self._direct))
        except (TimeoutError, OSError) as error:
            raise ExecutorError(
                f"a shared value could not be brought to the Dask workers: {reason_of(error)}"
            ) from error

    def submitter(self, function: Callable[..., Any], name: str, *fixed: Any) -> Callable[..., Future]:
        """Return a function that submits ``function(*fixed, *more)`` under a name that the dashboard shows."""

        def submit(*more: Any, at: str | None = None, **options: Any) -> Future:
            key, options = f"strombus-{name}-{uuid.uuid4().hex}", options | self.placement.rules(at)
            return self.client.submit(function, *fixed, *more, key=key, pure=False, retries=2, **options)

        return submit

    def _start_parts(
        self, task: Task, parts: Sequence[Any], shared: Shared[Any] | tuple[Shared[Any], ...] | None
    ) -> Callable[[int], Future]:
        """Return a function that submits part i: to worker i, where there are as many workers as parts."""
        name = getattr(task, "__name__", type(task).__name__)
        submit = self.submitter(run_part, name, dump(task, "task"))
        many, handles = isinstance(shared, tuple), as_tuple(shared)
        takes = {"resources": self.placement.resources} if self.placement.resources else {}

        def start(number: int) -> Future:
            workers, at = self.placement.latest, None
            if len(parts) <= len(workers):
                at = workers[(getattr(parts[number], "rank", number) + self._turn) % len(workers)]
            blob, native = self._describe(parts[number], number)
            return submit(number, blob, native, many, *(future_of(one) for one in handles), at=at, **takes)

        return start

    def _describe(self, part: Any, number: int, what: str = "part") -> tuple[bytes | None, Any]:
        """Return the part as bytes, or as a future of the partition it stands for."""
        if not isinstance(part, NativePartition):
            return dump(part, f"{what} {number}"), None
        if part.engine != "dask":
            raise ConfigurationError(
                f"partition {part.index} is held by {part.engine}, which Dask cannot open; use backend={part.engine!r}"
            )
        if isinstance(part.handle, Future):
            return None, part.handle
        return None, self.client.compute(part.handle, **self.placement.rules())

    def map(
        self, task: Task, parts: Sequence[Any], shared: Shared[Any] | tuple[Shared[Any], ...] | None = None
    ) -> Iterator[Any]:
        """Yield ``task(shared_value, part)`` for each part, in order, a bounded number ahead of the consumer."""
        if not len(parts):
            return
        handles, ahead = as_tuple(shared), AHEAD * len(self.placement.there())
        start, losses = self._start_parts(task, parts, shared), self.placement.losses
        running: dict[int, Future] = {}
        try:
            for number in range(len(parts)):
                for later in range(number + len(running), min(len(parts), number + ahead)):
                    running[later] = start(later)
                yield checked(self.collect(partial(start, number), handles, running.pop(number), losses), number)
        finally:
            if running:
                self.client.cancel(list(running.values()))

    def collect(
        self,
        start: Callable[[], Future],
        handles: Sequence[Any],
        future: Future | None = None,
        losses: int | None = None,
    ) -> Any:
        """Return a task's result, or its failure; start it again when what it was given died with a worker.

        Parameters
        ----------
        start : callable
            Submits the task; called after the lost ones among `handles` were made again.
        future : Future, optional
            The task, when it has been submitted already.
        losses : int, optional
            How often workers had gone by then.
        """
        losses = self.placement.losses if losses is None else losses
        for _ in range(TRIES):
            try:
                return self._gather(future or start(), losses)
            except CancelledError as error:
                lost, future, losses = error, None, self.placement.losses
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

    def _gather(self, future: Future, losses: int) -> Any:
        """Wait for a task as long as there are workers that could run it; CancelledError where its own may be gone."""
        while True:
            try:
                future.exception(timeout=WATCH if self.placement.chosen else PATIENCE)  # waits, and brings no data
                return self.client.gather(future, direct=self._direct)
            except TimeoutError:
                self.placement.there()
                if self.placement.chosen and self.placement.losses != losses:
                    raise CancelledError("a worker that was chosen has gone") from None

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
            self.placement.there()
            start = self._start_parts(task, parts, shared)
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
        future = None if shared is None else future_of(shared)
        described = [self._describe(payload, rank, "payload") for rank, payload in enumerate(payloads)]
        terms = Terms(timeout, attempt, survive, self.placement, copier(self.client, shared, self._direct))
        return run_gang(self.client, body, described, future, terms, on_event, control)

    def check(self) -> None:
        """Make sure that every worker can import Strombus; warn where versions differ from the driver's."""
        among = self.placement.there()
        ours = among if self.placement.chosen else None
        answers = self.client.run(by_value(probe_versions), workers=ours, on_error="return")
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
