"""The statistics of one part of the data, for a normalizer; a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from strombus.data import Rows, Source, epoch_order, read_batches
from strombus.data.rows import iterate_rows
from strombus.normalizers import Gathered, Normalizer
from strombus.types import Partition

__all__ = ["NormalizingWork", "gather_part", "merge_gathered"]


@dataclass(frozen=True)
class NormalizingWork:
    """What stays the same for all parts; shared with the workers once.

    Parameters
    ----------
    normalizer : Normalizer
    source : Source, optional
        Parts are spans of its rows; without one they are an engine's own partitions.
    """

    normalizer: Normalizer
    source: Source | None = None

    def rows(self, part: Any) -> Iterator[Rows]:
        """Yield the rows of a part, as they are stored."""
        if self.source is None:
            yield from iterate_rows(part)
            return
        order = epoch_order(self.source.blocks(), seed=0, epoch=0, shuffle=False)
        shares = (min(part.stop, window.stop) - max(part.start, window.start) for window in order)
        sizes = [rows for rows in shares if rows > 0]
        with read_batches(
            self.source, order, part.start, part.stop, sizes, seed=0, epoch=0, shuffle=False, prefetch=1
        ) as slabs:
            yield from slabs
        self.source.release()


def gather_part(work: NormalizingWork, part: Partition | Any) -> Gathered:
    """Return the statistics of one part, merged in the rows' order."""
    found: Gathered = {}
    for rows in work.rows(part):
        found = merge_gathered(found, work.normalizer.gather(rows))
    return found


def merge_gathered(left: Gathered, right: Gathered) -> Gathered:
    """Merge two parts' statistics."""
    return Normalizer.merge(left, right)
