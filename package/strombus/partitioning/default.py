"""Many partitions of about one minibatch each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from strombus.partitioning.base import Repartitioner, cut_evenly

__all__ = ["DefaultRepartitioner"]


class DefaultRepartitioner(Repartitioner):
    """Cut the rows into partitions of about one minibatch, at most `max_partitions` of them.

    Sizes differ by at most one row, and what workers get by at most one partition
    (DL4J: ``DefaultRepartitioner``).

    Parameters
    ----------
    max_partitions : int
        Upper bound on the number of partitions, 5000 by default as in DL4J.
    """

    name: ClassVar[str] = "default"
    max_partitions: int = Field(default=5000, ge=1)

    def _partition_rows(self, part_rows: Sequence[int], workers: int, batch_size: int, seed: int) -> list[int]:
        rows = sum(part_rows)
        # Below one partition per worker some would idle while there are rows for them.
        wanted = max(-(-rows // batch_size), min(workers, rows), 1)
        return cut_evenly(rows, min(wanted, self.max_partitions))
