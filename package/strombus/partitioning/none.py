"""The data's own parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from strombus.partitioning.base import Repartitioner

__all__ = ["NoOpRepartitioner"]


class NoOpRepartitioner(Repartitioner):
    """Keep the parts the data came in, whole (DL4J: ``NoOpRepartitioner``).

    Workers get whole parts, so their row counts differ as the parts do.
    """

    name: ClassVar[str] = "none"
    keeps_parts: ClassVar[bool] = True

    def _partition_rows(self, part_rows: Sequence[int], workers: int, batch_size: int, seed: int) -> list[int]:
        return list(part_rows)
