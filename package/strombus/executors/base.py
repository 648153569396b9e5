"""The whole boundary to an engine: run tasks on parts, merge what they return, bring up a gang.

An adapter knows an engine and no algorithm; what it runs are module-level functions of `strombus.worker`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from strombus.types import Capacity, ClockBounds, Event, Finding

__all__ = ["Control", "Executor", "Member", "Shared", "Task", "merge_plan"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")

Task = Callable[[Any, Any], Any]
"""``task(shared_value, part) -> result``: pure and repeatable, since an engine may run it again."""


class Shared(Protocol, Generic[T_co]):
    """A value that every worker can read; picklable."""

    def get(self) -> T_co:
        """Return the value, on a worker or on the driver."""

    def look(self, view: Callable[[T_co], R]) -> R:
        """Return ``view(value)``, computed where the value lies, so that only the view travels."""

    def free(self) -> None:
        """Let the engine forget the value (on the driver; a second call does nothing)."""


class Control(Protocol):
    """What the driver tells a running gang; polled at least once a second."""

    def stopping(self) -> bool:
        """Say whether members should finish early."""

    def commands(self) -> list[Any]:
        """Return, once each, the small records to hand to every member."""


class Member(Protocol):
    """What a gang body sees of its engine."""

    rank: int
    size: int
    attempt: int
    run_id: str
    host: str
    clock: ClockBounds
    """How far this process's clock is from the driver's, by a round trip when the member came."""

    def exchange(self, payload: bytes) -> list[bytes]:
        """Give `payload`, get everybody's in rank order; also a barrier, with the gang's deadline."""

    def stopping(self) -> bool:
        """Say whether the driver asked to finish, or its lease has run out."""

    def commands(self) -> list[Any]:
        """Return the driver's commands that have come since the last call, in order."""

    def report(self, event: Event) -> None:
        """Send a record, with at most 8 MiB of payload, to the driver's ``on_event``; never blocks on the driver."""

    def met(self) -> None:
        """Say that this member has met the others; once all have, a gang that is to `survive` goes on without some."""

    def miss(self, rank: int, reason: str) -> None:
        """Say that another member cannot be reached, so that the driver gives it up."""


class Executor(ABC):
    """Run tasks on one engine. Third parties add an engine by subclassing this.

    `strombus.testing.executor_suite` is the contract as tests.
    """

    name: str
    survives: ClassVar[bool] = False
    """Whether a gang can go on without members that are lost (`survive` of `gang`)."""

    @abstractmethod
    def capacity(self) -> Capacity:
        """Return the slots, hosts and threads of a slot as they are now."""

    @abstractmethod
    def share(self, value: T) -> Shared[T]:
        """Make `value` readable on every worker.

        Raises
        ------
        ConfigurationError
            When the value cannot be pickled; names the object inside it that cannot.
        """

    @abstractmethod
    def map(
        self, task: Task, parts: Sequence[Any], shared: Shared[Any] | tuple[Shared[Any], ...] | None = None
    ) -> Iterator[Any]:
        """Yield ``task(shared_value, part)`` for each part, in the order of `parts`.

        Parameters
        ----------
        task : callable
            A module-level function; given None for `shared` None, a tuple of values for a tuple.
        parts : sequence
            Small descriptions, or handles (`NativePartition`), which are opened where they lie.
        shared : Shared or tuple of Shared, optional

        Raises
        ------
        TaskError
            The first failure by part number, with the part and the remote traceback; its
            ``__cause__`` is the remote exception where it could travel.
        """

    @abstractmethod
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
        """Run `task` on each part and merge the results in a tree on the cluster.

        The order of merging is that of `merge_plan`, whatever finishes first. The result stays on
        the cluster; the call may return before it exists, and errors then come from ``get`` or ``look``.

        Parameters
        ----------
        merge : callable
            ``merge(left, right)``, associative; leaves both as they are, since an engine may merge them again.
        depth : int
            Levels of the tree (DL4J: ``aggregationDepth``), at least 1.
        finish : callable, optional
            Applied once to the merged result, where it lies.
        """

    @abstractmethod
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
        """Run ``body(member, shared_value, payload)`` for all payloads at the same time.

        Parameters
        ----------
        payloads : sequence
            One for each member; the member's rank is its index. All of them may be handles (`NativePartition`),
            opened where they lie; on Spark these are all the partitions of one RDD.
        timeout : float
            Seconds to wait for slots and for each exchange; not a bound on the whole body.
        survive : bool
            Once all members have said that they `met`, whether the others go on when one is lost: each gets the command
            ``{"lost": rank}``, in one order with all other commands. Given only where the class says `survives`.

        Returns
        -------
        list
            The bodies' results in rank order, with the error in the place of a member without whom the others went on.

        Raises
        ------
        GangUnavailable
            At once, when there are fewer slots than payloads.
        GangError
            A body raised, or a member was lost; names the rank, carries the remote traceback.
        GangTimeout
            A wait passed its deadline.
        """

    def split(self, count: int) -> tuple[Executor, Executor | None]:
        """Return executors on `count` of the slots and on the others, for two things at a time; neither is closed.

        The second is None where there are no other slots, or the engine does not know.
        """
        return self, None

    def check(self) -> None:
        """Make sure that every worker can import Strombus; raise `ExecutorError` that says which cannot."""

    def concerns(self) -> list[Finding]:
        """Return what in the engine's settings stands in the way of a training, each with the setting to change."""
        return []

    def links(self) -> dict[str, str]:
        """Return the addresses of pages that show the engine at work, by what to call them."""
        return {}

    def close(self) -> None:
        """Close what this executor opened, and nothing else; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def merge_plan(count: int, depth: int = 2) -> list[list[tuple[int, ...]]]:
    """Lay out a merge tree: for each level, groups of the indices to fold from left to right.

    Group ``j`` of a level becomes item ``j`` of the next, and the last level has one group, so that
    every engine adds in the same order. The fan-in is about ``count ** (1 / depth)``, at least 2.

    Parameters
    ----------
    count : int
        Items to merge, at least 1.
    depth : int
        Levels wanted, at least 1.

    Examples
    --------
    >>> merge_plan(5, depth=2)
    [[(0, 1, 2), (3, 4)], [(0, 1)]]
    """
    levels: list[list[tuple[int, ...]]] = []
    fan_in = max(2, round_up_root(count, depth))
    while count > 1:
        groups = [tuple(range(start, min(start + fan_in, count))) for start in range(0, count, fan_in)]
        levels.append(groups)
        count = len(groups)
    return levels


def round_up_root(count: int, depth: int) -> int:
    """Return the smallest integer whose `depth`-th power reaches `count`."""
    root = 1
    while root**depth < count:
        root += 1
    return root
