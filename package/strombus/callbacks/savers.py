"""Where early stopping keeps the best and the latest network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike, fspath
from typing import Literal

from strombus.errors import MissingDataError
from strombus.files import join
from strombus.networks import Network
from strombus.types import NetworkState

__all__ = ["FileModelSaver", "InMemoryModelSaver", "ModelSaver"]

Which = Literal["best", "latest"]


class ModelSaver(ABC):
    """Keeps two networks' values (DL4J: ``EarlyStoppingModelSaver``)."""

    @abstractmethod
    def save(self, which: Which, network: Network) -> None:
        """Keep the values that `network` has now, in place of what was kept as `which`."""

    @abstractmethod
    def load(self, which: Which, network: Network) -> bool:
        """Give `network` the values that were kept; False, and no change, where there are none."""


class InMemoryModelSaver(ModelSaver):
    """Keeps values in this process, and only there (DL4J: ``InMemoryModelSaver``)."""

    def __init__(self) -> None:
        self._kept: dict[Which, tuple[NetworkState, int, float | None]] = {}

    def save(self, which: Which, network: Network) -> None:
        self._kept[which] = network.state(), network.epoch, network.score

    def load(self, which: Which, network: Network) -> bool:
        if which not in self._kept:
            return False
        state, network.epoch, network.score = self._kept[which]
        network.load_state(state)
        return True


class FileModelSaver(ModelSaver):
    """Writes ``best.safetensors`` and ``latest.safetensors`` (DL4J: ``LocalFileModelSaver``).

    Parameters
    ----------
    directory : path or URI
    """

    def __init__(self, directory: str | PathLike[str]) -> None:
        self._directory = fspath(directory)

    def path(self, which: Which) -> str:
        """Return the file of a network, for ``network.load``."""
        return join(self._directory, f"{which}.safetensors")

    def save(self, which: Which, network: Network) -> None:
        network.save(self.path(which))

    def load(self, which: Which, network: Network) -> bool:
        try:
            network.load(self.path(which))
        except MissingDataError:
            return False
        return True
