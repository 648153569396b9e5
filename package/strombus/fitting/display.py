"""How a trainer shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from strombus.callbacks.tables import Link, fact_table
from strombus.executors.base import Executor
from strombus.fitting.result import FitResult
from strombus.masters.base import TrainingMaster
from strombus.masters.shared_training import SharedTrainingMaster
from strombus.networks import Network
from strombus.ports import named_ports
from strombus.transport.base import DRIVER
from strombus.types import Capacity

__all__ = ["counted", "describe_capacity", "describe_master", "describe_network", "describe_ports", "show_trainer"]


def show_trainer(
    network: Network, master: TrainingMaster | None, backend: Any, executor: Executor | None, last: FitResult | None
) -> str:
    """Return a trainer as HTML.

    Parameters
    ----------
    backend : object
        What it was given.
    executor : Executor or None
        None until the backend is opened; looking at a trainer opens none.
    last : FitResult or None
        Of its last fit.
    """
    how = "none: for scoring, evaluation and inference" if master is None else describe_master(master)
    facts: list[tuple[str, Any]] = [("network", describe_network(network)), ("master", how)]
    facts += _backend_facts(backend, executor)
    facts += _last_facts(network, last)
    return fact_table("Trainer", facts)


def describe_network(network: Network) -> str:
    """Say what a network is, and how far it is trained."""
    optimizer = getattr(network.optimizer, "func", network.optimizer)
    by = "" if optimizer is None else f", {getattr(optimizer, '__name__', type(optimizer).__name__)}"
    trained = f"{network.epoch:,} epochs, {network.iteration:,} iterations so far"
    return f"{network!r}{by}, device {network.device}; {trained}"


def describe_master(master: TrainingMaster) -> str:
    """Say which master it is, and which of its options are not the default ones."""
    hooks = "".join(f"; hook {type(hook).__name__}" for hook in master.training_hooks)
    return f"{_given(master)}{hooks}"


def _given(options: BaseModel) -> str:
    """Return the text of some options, of those within them too, without what is the default."""
    fields = type(options).model_fields
    given = [
        f"{name}={_given(value) if isinstance(value, BaseModel) else repr(value)}"
        for name, value in options.__repr_args__()
        if name in fields and value != fields[name].get_default(call_default_factory=True)
    ]
    return f"{type(options).__name__}({', '.join(given)})"


def describe_ports(master: TrainingMaster, workers: int) -> str | None:
    """Say what must be open between the workers; None where they say nothing to each other."""
    if not isinstance(master, SharedTrainingMaster) or workers < 2:
        return None
    options = master.transport_options
    asked = options.ports or named_ports()
    port = "any free one" if asked is None else "one of " + "-".join(map(str, dict.fromkeys(asked)))
    advice = "" if asked else "; give `ports` where a firewall must know it"
    if options.topology == "star":
        place = "this program's host" if options.hub == DRIVER else options.hub
        return f"all workers dial the hub on {place}, at a port of its own ({port}{advice}); nobody else listens"
    return f"each worker listens at a port of its own, {port}, for the others{advice}"


def describe_capacity(capacity: Capacity) -> str:
    """Say how many slots there are, and where."""
    slots = "an unknown number of slots" if capacity.slots is None else counted(capacity.slots, "slot")
    hosts = counted(len(capacity.hosts), "host") if capacity.hosts else "unknown hosts"
    names = f" ({', '.join(capacity.hosts[:4])}{', ...' if len(capacity.hosts) > 4 else ''})" if capacity.hosts else ""
    return f"{slots} of {counted(capacity.threads, 'thread')} on {hosts}{names}"


def counted(count: int, noun: str, plural: str = "s") -> str:
    """Return ``"1 row"`` or ``"2 rows"``; `plural` is what is put behind."""
    return f"{count:,} {noun}{plural * (count != 1)}"


def _backend_facts(backend: Any, executor: Executor | None) -> Iterator[tuple[str, Any]]:
    if executor is None:
        name = repr(backend) if isinstance(backend, str) else type(backend).__name__
        yield "backend", f"{name}, which is opened when it is first needed"
        return
    try:
        yield "backend", f"{executor.name}: {describe_capacity(executor.capacity())}"
    except Exception as error:  # a notebook shows what there is, also of a cluster that is gone
        yield "backend", f"{executor.name}, which does not answer: {type(error).__name__}: {error}"
        return
    for text, address in executor.links().items():
        yield "", Link(text, address)


def _last_facts(network: Network, last: FitResult | None) -> Iterator[tuple[str, Any]]:
    if last is None:
        if network.score is not None:
            yield "score", f"{network.score:.4f}"
        return
    yield "last fit", last.summary()
