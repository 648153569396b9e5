"""One partition for each worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from strombus.partitioning.base import Repartitioner, cut_evenly

__all__ = ["EqualRepartitioner"]


class EqualRepartitioner(Repartitioner):
    """Give every worker one partition; sizes differ by at most one row (DL4J: ``EqualRepartitioner``)."""

    name: ClassVar[str] = "equal"

    def _partition_rows(self, part_rows: Sequence[int], workers: int, batch_size: int, seed: int) -> list[int]:
        sizes = cut_evenly(sum(part_rows), workers)
        return [sizes[i] for i in np.random.default_rng(seed).permutation(workers)]
