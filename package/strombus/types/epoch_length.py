"""How long an epoch is that ends after so many steps."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EpochLength"]


@dataclass(frozen=True, slots=True)
class EpochLength:
    """Rows of an epoch that ends after so many steps, whatever the data has.

    A fit that goes on with fewer workers than it began with trains the same rows in more steps.

    Parameters
    ----------
    rows : int
        All workers' together.
    workers : int
        With which the fit began.
    began : int
        The fit's first epoch, from zero since the network was made.
    """

    rows: int
    workers: int
    began: int
