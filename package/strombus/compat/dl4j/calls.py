"""Functions on their way to workers, with the broadcast values and accumulators inside them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import cloudpickle
from distributed import get_worker

from strombus.compat.dl4j.variables import Accumulator, Broadcast
from strombus.executors import calls

__all__ = ["dump_call", "dump_records", "load_records", "run_call"]


class _CallPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Leave variables out of the pickle: a broadcast value becomes an input of the task, fetched once by a worker."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.broadcasts: list[Broadcast] = []

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        if type(value) is Broadcast:
            self.broadcasts.append(value)
            return "broadcast", len(self.broadcasts) - 1
        return ("accumulator", value.ticket) if type(value) is Accumulator else None


class _CallUnpickler(pickle.Unpickler):
    def __init__(self, blob: bytes, values: list[Any]) -> None:
        super().__init__(io.BytesIO(blob))
        self._values = values
        self.accumulators: dict[str, Accumulator] = {}

    def persistent_load(self, found: tuple[Any, ...]) -> Any:
        if found[0] == "broadcast":
            return Broadcast(self._values[found[1]])
        ticket = found[1]
        return self.accumulators.setdefault(ticket.id, Accumulator(ticket))


def dump_call(function: Callable[..., Any], operation: str) -> tuple[bytes, list[Broadcast]]:
    """Pickle a function; return it with the broadcast values that it uses, in order.

    Raises
    ------
    ConfigurationError
        When it cannot be pickled; names the innermost object that cannot.
    """
    file = io.BytesIO()
    pickler = _CallPickler(file)
    try:
        pickler.dump(function)
    except Exception:
        calls.dump(function, f"the function of {operation}")
        raise
    return file.getvalue(), pickler.broadcasts


def run_call(blob: bytes, index: int, count: int, *inputs: Any) -> list[Any]:
    """Return ``list(function(index, *blocks))``; a task: the first `count` inputs are blocks, the rest broadcasts."""
    loader = _CallUnpickler(blob, [packed.get() for packed in inputs[count:]])
    function = loader.load()
    result = list(function(index, *inputs[:count]))
    if updates := [(name, one.taken()) for name, one in loader.accumulators.items()]:
        # On the same way as the message that the task has finished, and before it.
        worker = get_worker()
        report = cloudpickle.dumps((str(worker.get_current_task()), index, updates))
        worker.log_event(loader.accumulators[updates[0][0]].ticket.topic, report)
    return result


def dump_records(records: Iterable[Any]) -> bytes:
    """Pickle a partition to keep it; a task. What later tasks do to their copies never shows in it."""
    return bytes(cloudpickle.dumps(records, protocol=5))


def load_records(blob: Any) -> list[Any]:
    """Load a partition that was kept, or that came from the driver; a task."""
    records: list[Any] = pickle.loads(blob if isinstance(blob, bytes) else blob.head)
    return records
