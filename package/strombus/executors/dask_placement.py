"""On which workers of a Dask cluster an executor runs: all, those that were asked for, or some of these."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, get_client, get_worker
from distributed.worker import secede, thread_state

from strombus.errors import ConfigurationError, ExecutorError, reason_of
from strombus.executors.members import LEASE

__all__ = ["Placement", "alive_workers", "client_of_task", "holding", "leave_slot", "silent_workers", "spread"]

PATIENCE = 30.0
"""Seconds to wait for a first worker."""
LOOK = 5.0
"""Seconds between two looks at which workers say nothing."""

_HELD: ContextVar[frozenset[str]] = ContextVar("strombus-held", default=frozenset())
"""The workers of the gang that this thread waits for: what a callback asks of them, they would do when it returns."""


@contextmanager
def holding(workers: Sequence[str]) -> Iterator[None]:
    """Have this thread ask nothing of `workers`, which a gang keeps busy, for a ``with`` block."""
    token = _HELD.set(_HELD.get() | frozenset(workers))
    try:
        yield
    finally:
        _HELD.reset(token)


def client_of_task() -> Client | None:
    """Return the client of the worker whose task this is; None outside of one."""
    try:
        get_worker()
    except ValueError:
        return None
    return get_client()


def leave_slot(client: Client) -> None:
    """Give up this task's slot, if this is one of the client's cluster: what it waits for may need it."""
    try:
        worker = get_worker()
    except ValueError:
        return
    if worker.scheduler.address == client.scheduler.address and hasattr(thread_state, "start_time"):
        try:
            secede()
        except KeyError:
            return  # it has done so before, as `worker_client` does


def alive_workers(client: Client, among: Sequence[str] | None = None, *, running: bool = False) -> dict[str, int]:
    """Return the threads of each worker that the scheduler knows, sorted by address.

    `running` leaves out those that take no new tasks, such as those that are just being retired.
    """
    scheduler = client.scheduler
    found: dict[str, int] = _ask(client, scheduler.ncores_running if running else scheduler.ncores, workers=among)
    return dict(sorted(found.items()))


def _ask(client: Client, question: Any, **details: Any) -> Any:
    """Ask the scheduler; ExecutorError where it does not answer."""
    try:
        return client.sync(question, **details, callback_timeout=LEASE)
    except (TimeoutError, OSError) as error:
        raise ExecutorError(
            f"the Dask scheduler {client.scheduler.address} did not answer within {LEASE:g} s ({reason_of(error)}); "
            "does it run?"
        ) from error


def silent_workers(client: Client) -> set[str]:
    """Return the workers that the scheduler counts and has not heard of lately."""
    return _silent(_ask(client, client.scheduler.identity, n_workers=-1)["workers"])


def spread(workers: Sequence[str], busy: Mapping[str, int]) -> list[str]:
    """Sort workers: free ones first, and of these one of each host before a second of any."""
    taken: Counter[tuple[int, str | None]] = Counter()
    places = {}
    for worker in sorted(workers):
        group = (busy[worker], urlsplit(worker).hostname)
        places[worker] = (busy[worker], taken[group], worker)
        taken[group] += 1
    return sorted(workers, key=places.__getitem__)


@dataclass
class Placement:
    """The workers of one executor, as they are from moment to moment.

    Parameters
    ----------
    client : distributed.Client
    workers : sequence, optional
        Addresses or names of those that may be used.
    resources : mapping, optional
        What a worker must have, and a task takes of it.
    part : slice, optional
        Which of these, one of each host before a second of any.
    turn : int
        Where this order begins, so that several executors begin elsewhere.
    given_up : dict of str to float
        Workers on which a member was given up that said nothing, and until when no other is put there: by then a
        member that hangs has been left behind, and the scheduler tells which workers are silent.

    Attributes
    ----------
    losses : int
        Times that a worker was seen to have gone.
    """

    client: Client
    workers: frozenset[Any] | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    part: slice | None = None
    turn: int = 0
    given_up: dict[str, float] = field(default_factory=dict)
    losses: int = 0

    def __post_init__(self) -> None:
        self._known, self._fit, self._silent = set[str](), set[str](), set[str]()
        self._there: list[str] = []
        self._looked = 0.0

    def check(self) -> None:
        """Raise ConfigurationError where there is none of the workers that were asked for."""
        if self.workers is None and not self.resources:
            return
        records = self._look()
        lacking = sorted((self.workers or frozenset()) - _names(records), key=repr)
        if lacking or not self._fit:
            listed = ", ".join(f"{address} (name {record['name']!r})" for address, record in sorted(records.items()))
            wanted = f"workers={lacking}" if lacking else f"resources={dict(self.resources)}"
            hint = "start them with `dask worker --resources`, or " if not lacking else ""
            raise ConfigurationError(
                f"DaskExecutor: no worker of the cluster has {wanted}; {hint}choose among {listed or 'none, so far'}"
            )

    def portion(self, part: slice) -> Placement:
        """Return a placement on some of these workers."""
        return replace(self, part=part)

    @property
    def latest(self) -> list[str]:
        """The workers as they were seen last."""
        return self._there

    @property
    def chosen(self) -> bool:
        """Whether only some workers of the cluster may be used."""
        return self.workers is not None or bool(self.resources) or self.part is not None

    def refresh(self) -> None:
        """Look at once, the next time, which workers say nothing."""
        self._looked = 0.0

    def usable(self) -> dict[str, int]:
        """Return the threads of the workers that are there, but for those that hang or say nothing."""
        if time.monotonic() - self._looked > LOOK:
            self._look()
        found = alive_workers(self.client, running=True)
        if found.keys() - self._known:
            self._look()
        without = self.left_out()
        mine = [worker for worker in found if worker in self._fit and worker not in without]
        if self.part is not None and mine:
            ordered, first = spread(mine, dict.fromkeys(mine, 0)), self.turn % len(mine)
            mine = sorted((ordered[first:] + ordered[:first])[self.part])
        return {worker: found[worker] for worker in mine}

    def alive(self) -> dict[str, int]:
        """Return the same of those that may be asked for something now: that are not held."""
        mine, held = self.usable(), _HELD.get()
        there = {worker: threads for worker, threads in mine.items() if worker not in held}
        if mine and not there:
            raise ExecutorError(
                f"the workers {', '.join(mine)} train together, and wait for the callback that asks for them: train "
                "in it on others, DaskExecutor(client, workers=[...]), or in this process, backend=LocalExecutor(1); "
                "plan.trainer scores in this process"
            )
        self.losses += bool(set(self._there) - there.keys())
        self._there = list(there)
        return there

    def left_out(self) -> set[str]:
        """Return the workers that say nothing, or on which a member hangs."""
        now = time.monotonic()
        return self._silent | {worker for worker, until in self.given_up.items() if until > now}

    def there(self) -> list[str]:
        """Return the workers' addresses; wait for the first, which may just be starting again."""
        deadline = time.monotonic() + PATIENCE
        while not (workers := list(self.alive())):
            if time.monotonic() > deadline:
                which = " of those that this executor may use" if self.chosen else ""
                raise ExecutorError(
                    f"the Dask cluster had no worker{which} for {PATIENCE:g} s; start some, or wait for them with "
                    "client.wait_for_workers(1)"
                )
            time.sleep(0.1)
        return workers

    def rules(self, preferred: str | None = None) -> dict[str, Any]:
        """Return where a task may run, as ``client.submit`` takes it; `preferred` is the best place.

        Where the workers were chosen it is the only one: Dask knows no second best among some.
        """
        if self.chosen or _HELD.get():
            return {"workers": [preferred] if preferred else self._there or self.there(), "allow_other_workers": False}
        if self.left_out():  # the scheduler would put tasks on workers that hang, too
            return {"workers": self.there(), "allow_other_workers": False}
        return {"workers": [preferred], "allow_other_workers": True} if preferred else {}

    def _look(self) -> dict[str, dict[str, Any]]:
        """Ask the scheduler what it knows of its workers."""
        records: dict[str, dict[str, Any]] = _ask(self.client, self.client.scheduler.identity, n_workers=-1)["workers"]
        self._silent, self._looked = _silent(records), time.monotonic()
        self._known = set(records)
        self._fit = {address for address, record in records.items() if self._fits(address, record)}
        return records

    def _fits(self, address: str, record: Mapping[str, Any]) -> bool:
        has = record.get("resources", {})
        mine = self.workers is None or bool(self.workers & {address, record["name"]})
        return mine and all(has.get(name, 0) >= amount for name, amount in self.resources.items())


def _names(records: Mapping[str, Mapping[str, Any]]) -> set[Any]:
    return {*records, *(record["name"] for record in records.values())}


def _silent(records: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the workers that the scheduler counts and has not heard of lately: they hang, are stopped or cut off.

    The scheduler itself lets go of them after minutes (``distributed.scheduler.worker-ttl``).
    """
    seen = {worker: record["last_seen"] for worker, record in records.items()}
    # Workers speak every 0.5 s, or where they are many, every n / 200 + 1. A gang gives one up after `LEASE`.
    patience = max(0.8 * LEASE, len(seen) / 50)
    latest = max(seen.values(), default=0.0)
    return {worker for worker, moment in seen.items() if latest - moment > patience}
