"""What every engine does around one call: pickle it, guard torch's global state, return a failure as a value."""

from __future__ import annotations

import ctypes
import os
import pickle
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import cloudpickle

from strombus.errors import ConfigurationError, PeerLost, TaskError
from strombus.executors.turns import Turns

__all__ = [
    "TRAINING",
    "Failure",
    "describe_place",
    "dump",
    "keep_freed_memory",
    "load",
    "return_freed_memory",
    "run_task",
    "set_torch_threads",
    "torch_guard",
    "trains",
]

T = TypeVar("T")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_ONE_TASK = threading.RLock()
"""Held while a task runs: torch has one CPU generator and one thread count for the whole process."""

TRAINING = Turns()
"""Held by who trains in this process: a task, or a gang for all of its time."""


@dataclass(frozen=True)
class Failure:
    """An exception on its way to the driver, as a value, so that no engine retries behind our back.

    Parameters
    ----------
    name : str
        The exception's type.
    text : str
        Its message.
    traceback : str
        The worker's traceback.
    place : str
        Host and process, ``"name:pid"``.
    part : int or None
        Number of the part, or rank of the member; None where results of several parts were merged.
    cause : bytes or None
        The pickled exception, None when it cannot travel.
    stopped : bool
        True for a gang's member that failed only because another one had.
    missed : int or None
        Rank of the member that could not be reached, where that was the failure.
    """

    name: str
    text: str
    traceback: str
    place: str
    part: int | None = None
    cause: bytes | None = None
    stopped: bool = False
    missed: int | None = None

    @classmethod
    def of(cls, error: BaseException, part: int | None = None, stopped: bool = False) -> Failure:
        """Describe `error`, which is being handled here and now."""
        trace = "".join(traceback.format_exception(error))
        missed = error.rank if isinstance(error, PeerLost) else None
        return cls(type(error).__name__, str(error), trace, describe_place(), part, _portable(error), stopped, missed)

    def exception(self) -> BaseException | None:
        """Return the original exception, where it could travel."""
        try:
            return None if self.cause is None else pickle.loads(self.cause)
        except Exception:
            return None  # a class that this process cannot import; name, message and traceback are here

    def to_error(self, kind: type[TaskError] = TaskError, noun: str = "part") -> TaskError:
        """Return the error to raise on the driver, its ``__cause__`` set."""
        what = "what was done with the parts' results" if self.part is None else f"{noun} {self.part}"
        error = kind(f"{what} failed on {self.place}: {self.name}: {self.text}", self.part, self.traceback)
        error.__cause__ = self.exception()
        return error


def _portable(error: BaseException) -> bytes | None:
    """Pickle an exception, if it can be loaded again."""
    try:
        blob: bytes = cloudpickle.dumps(error)
        pickle.loads(blob)
    except Exception:
        return None
    return blob


def describe_place() -> str:
    """Return host and process as ``"name:pid"``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def dump(value: Any, what: str, buffers: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """Pickle `value`, functions and classes of a script by value.

    Parameters
    ----------
    what : str
        How to call the value in the error.
    buffers : callable, optional
        Takes the memory of arrays out of band (pickle protocol 5) instead of copying it.

    Raises
    ------
    ConfigurationError
        When it cannot be pickled; names the innermost object that cannot.
    """
    try:
        return bytes(cloudpickle.dumps(value, protocol=5, buffer_callback=buffers))
    except Exception as error:
        path, culprit = _find_culprit(value)
        raise ConfigurationError(
            f"{what} must be picklable to reach the workers, but {what}{path} of type "
            f"{type(culprit).__module__}.{type(culprit).__qualname__} is not ({error}); "
            "leave it out, or make it on the worker"
        ) from error


def load(blob: bytes, buffers: Sequence[Any] = ()) -> Any:
    """Load what `dump` pickled."""
    return pickle.loads(blob, buffers=buffers)


def _find_culprit(value: Any, depth: int = 6) -> tuple[str, Any]:
    """Descend to the innermost object that cannot be pickled; return the path to it and the object."""
    for step, child in _children(value) if depth else ():
        try:
            cloudpickle.dumps(child, protocol=5)
        except Exception:
            path, culprit = _find_culprit(child, depth - 1)
            return step + path, culprit
    return "", value


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", child) for key, child in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", child) for index, child in enumerate(value)]
    cells = getattr(value, "__closure__", None)
    if cells:
        names = value.__code__.co_freevars
        return [(f" variable {name}", cell.cell_contents) for name, cell in zip(names, cells, strict=True)]
    return [(f".{name}", child) for name, child in getattr(value, "__dict__", {}).items()]


def _loaded_torch() -> Any:
    """Return torch if this process has imported all of it."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "get_rng_state") else None


def set_torch_threads(count: int) -> None:
    """Give torch `count` threads in this process, if torch is loaded."""
    torch = _loaded_torch()
    if torch is not None and torch.get_num_threads() != count:
        torch.set_num_threads(count)


@contextmanager
def torch_guard(threads: int | None = None) -> Iterator[None]:
    """Save torch's CPU random state and thread count, and restore them at the end.

    Torch is not imported for this. `threads`, if given, is the number that torch gets meanwhile.
    """
    torch = _loaded_torch()
    if torch is None:
        yield
        return
    state, before = torch.get_rng_state(), torch.get_num_threads()
    try:
        if threads is not None:
            set_torch_threads(threads)
        yield
    finally:
        set_torch_threads(before)
        torch.set_rng_state(state)


def keep_freed_memory() -> None:
    """Have glibc keep up to 64 MB of freed memory, which it gives back by itself or where the environment says so.

    Dask starts its workers with ``MALLOC_TRIM_THRESHOLD_=65536``. Torch frees and allocates its gradients in every
    step, and then pays for fresh pages each time: a plain loop over a network of 7.4 MB was 1.3 to 1.5 times as
    fast with this (measured in a Dask worker).
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_TRIM_THRESHOLD, 64 << 20)
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)


def return_freed_memory() -> None:
    """Have glibc give back all pages that are free, those between used ones too."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def trains(task: T) -> T:
    """Mark a task that draws random numbers: no gang and no other such task is at work in its process meanwhile."""
    task._strombus_trains = True  # type: ignore[attr-defined]
    return task


def run_task(
    task: Callable[[Any, Any], Any],
    part: Any,
    number: int,
    shared: Callable[[], Any],
    threads: int | None = None,
    *,
    marked: Any = None,
) -> Any:
    """Return ``task(shared(), part)``, or a `Failure`; one at a time in a process.

    `marked` is the task that `trains` may have marked, where `task` is only what calls it.
    """
    try:
        keep_freed_memory()
        turn = TRAINING.take() if hasattr(marked or task, "_strombus_trains") else nullcontext()
        with turn, _ONE_TASK, torch_guard(threads):
            return task(shared(), part)
    except Exception as error:
        return Failure.of(error, number)
