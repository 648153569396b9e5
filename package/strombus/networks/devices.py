"""Which device a process computes on: of the GPUs of a host, each process has one to itself as far as they go round."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import torch

__all__ = ["Claims", "choose_gpu", "resolve_device"]

_ROUNDS = 64
"""Processes that may share one GPU before nobody counts them any more."""


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn ``"auto"`` into a GPU of this process's own where there are some, into the CPU elsewhere.

    That is the one which Spark has assigned to the task; else the first, as ``CUDA_VISIBLE_DEVICES`` lists them, that
    no other process of this host has taken. Where there are more processes than GPUs, they share them evenly.
    """
    if str(device) != "auto":
        return torch.device(device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return torch.device("cuda", choose_gpu(torch.cuda.device_count(), _assigned(), visible, CLAIMS.take))


def choose_gpu(
    count: int, assigned: Sequence[str], visible: Sequence[str], claim: Callable[[Sequence[str]], int]
) -> int:
    """Return the number of the GPU to take, as torch counts them.

    Parameters
    ----------
    count : int
        GPUs that torch sees.
    assigned : sequence of str
        The addresses that an engine has given to this task; empty where it gives none.
    visible : sequence of str
        What ``CUDA_VISIBLE_DEVICES`` lists.
    claim : callable
        Returns which of several GPUs, given by name, is free.
    """
    names = list(visible) if len(visible) == count else [str(number) for number in range(count)]
    for address in assigned:
        if address in names:
            return names.index(address)
        if address.isdecimal() and int(address) < count:
            return int(address)
    return claim(names) if count > 1 else 0


def _assigned() -> list[str]:
    """Return the GPUs that Spark has given to the task that runs in this process; who runs one has imported Spark."""
    context = getattr(sys.modules.get("pyspark"), "TaskContext", None)
    task = None if context is None else context.get()
    found = None if task is None else task.resources().get("gpu")
    return [] if found is None else [str(address) for address in found.addresses]


class Claims:
    """The GPU that this process has taken: a file that it keeps locked for as long as it lives.

    A lock ends with its process, however that ends, and needs no rank: tasks, members of gangs and several fits on
    one host find what is free in the same way.

    Parameters
    ----------
    folder : path, optional
        One of this user's in the host's directory for temporary files, by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._taken: dict[str, IO[bytes]] = {}
        self._process = 0

    def take(self, names: Sequence[str]) -> int:
        """Return the place of the GPU that this process has among `names`, or takes now."""
        if self._process != os.getpid():  # of a process that was forked the locks are its parent's
            self._taken, self._process = {}, os.getpid()
        for place, name in enumerate(names):
            if name in self._taken:
                return place
        for share in range(_ROUNDS):
            for place, name in enumerate(names):
                if self._lock(name, share):
                    return place
        return os.getpid() % len(names)

    def _lock(self, name: str, share: int) -> bool:
        import fcntl

        folder = self._folder or Path(tempfile.gettempdir()) / f"strombus-gpus-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            file = (folder / f"{name.replace('/', '-')}.{share}").open("wb")
        except OSError:  # nowhere to write: as many processes as there are, on GPUs by their numbers
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._taken[name] = file
        return True


CLAIMS = Claims()
"""Of this process."""
