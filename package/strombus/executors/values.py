"""Shared values in transit: pickled once, loaded once in each process."""

from __future__ import annotations

import mmap
import pickle
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from strombus.executors.base import Shared
from strombus.executors.calls import dump, load

__all__ = ["LOADED", "FileValue", "LoadOnce", "Packed", "as_tuple", "as_values", "write_file"]

KEPT = 4
"""Values that a process keeps loaded: the network and the parameters of a job, and those of a second one."""

ALIGNMENT = 64


class LoadOnce:
    """Keep the last few values that this process has loaded, by key."""

    def __init__(self, size: int) -> None:
        self._values: OrderedDict[str, Any] = OrderedDict()
        self._size = size
        self._lock = threading.RLock()

    def get(self, key: str, loader: Callable[[], Any]) -> Any:
        """Return the value of `key`, loading it the first time."""
        with self._lock:
            if key not in self._values:
                self._values[key] = loader()
                while len(self._values) > self._size:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
            return self._values[key]


LOADED = LoadOnce(KEPT)
"""Of this process; a cache only: every entry can be loaded again."""


class Packed:
    """A pickled value with the memory of its arrays beside it; loaded only when a task asks.

    A value whose loading fails then fails in the task that needs it, and not somewhere in the engine.
    """

    def __init__(self, key: str, head: bytes, buffers: Sequence[Any]) -> None:
        self.key = key
        self.head = head
        self.buffers = list(buffers)

    @classmethod
    def of(cls, value: Any, what: str = "shared value") -> Packed:
        """Pickle `value`; its arrays are not copied, so they must not change while it is shared."""
        buffers: list[pickle.PickleBuffer] = []
        head = dump(value, what, buffers.append)
        return cls(uuid.uuid4().hex, head, buffers)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self.key, self.head, [pickle.PickleBuffer(buffer) for buffer in self.buffers])

    def get(self) -> Any:
        """Return the value, the same object each time in one process."""
        return LOADED.get(self.key, lambda: load(self.head, self.buffers))


def write_file(packed: Packed, folder: Path) -> Path:
    """Write a packed value into `folder`; `FileValue` reads it."""
    views = [memoryview(packed.head), *(pickle.PickleBuffer(buffer).raw() for buffer in packed.buffers)]
    path = folder / packed.key
    with path.open("wb") as file:
        file.write(pickle.dumps([len(view) for view in views]))
        for view in views:
            file.write(bytes(-file.tell() % ALIGNMENT))
            file.write(view)
    return path


class FileValue:
    """A value in a file that every process of this host can read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self) -> Any:
        """Return the value; its arrays are private, writable views of the file."""
        return LOADED.get(self.path.name, self._load)

    def take(self) -> Any:
        """Return the value and remove the file: what has been mapped stays readable."""
        try:
            return self._load()
        finally:
            self.path.unlink(missing_ok=True)

    def _load(self) -> Any:
        with self.path.open("rb") as file:
            sizes = pickle.load(file)
            position = file.tell()
            memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        views = []
        for size in sizes:
            position += -position % ALIGNMENT
            views.append(memory[position : position + size])
            position += size
        return load(bytes(views[0]), views[1:])


def as_tuple(shared: Shared[Any] | tuple[Shared[Any], ...] | None) -> tuple[Shared[Any], ...]:
    """Return the handles that `shared` stands for."""
    if shared is None:
        return ()
    return shared if isinstance(shared, tuple) else (shared,)


def as_values(shared: Shared[Any] | tuple[Shared[Any], ...] | None) -> Any:
    """Return what a task is given: None, one value, or a tuple of values."""
    if isinstance(shared, tuple):
        return tuple(one.get() for one in shared)
    return None if shared is None else shared.get()
