"""A module's values apart from the module, and the module made again from them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from strombus.errors import ConfigurationError
from strombus.networks.checks import make_module
from strombus.networks.flat import module_tensors, to_numpy

__all__ = ["DRAWING", "read_values", "rebuild"]

Values = dict[str, tuple[NDArray[Any], torch.dtype, bool]]

_PATIENCE = 10.0
"""Seconds to wait for who draws from torch's generator; one that takes longer hangs, or draws no more."""


class _Drawing:
    """Held while a step, or a module that is made again, draws from torch's generator: the process has one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def hold(self) -> Iterator[None]:
        lock = self._lock
        if not lock.acquire(timeout=_PATIENCE):
            lock = self._lock = threading.RLock()  # nobody waits for the old one's holder again
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


DRAWING = _Drawing()


def read_values(module: nn.Module) -> Values:
    """Return parameters (frozen ones too) and buffers by name, each with its type and whether it is trainable."""
    tensors = module_tensors(module)
    return {name: (to_numpy(tensor), tensor.dtype, tensor.requires_grad) for name, tensor in tensors.items()}


def rebuild(factory: Callable[[], nn.Module], values: Values) -> nn.Module:
    """Make the module again and give it the values, without drawing from the caller's random numbers."""
    with DRAWING.hold(), torch.random.fork_rng(devices=[]):
        module = make_module(factory)
    tensors = module_tensors(module)
    if {name: t.shape for name, t in tensors.items()} != {name: array.shape for name, (array, *_) in values.items()}:
        raise ConfigurationError(
            "the module that the factory makes differs from the network's; after changing network.module, "
            "make a new network from the module itself"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            array, dtype, requires_grad = values[name]
            tensor.data = tensor.data.to(dtype)
            tensor.copy_(torch.tensor(array))
            tensor.requires_grad_(requires_grad)
    return module
