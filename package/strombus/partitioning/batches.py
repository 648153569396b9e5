"""How a stretch of rows is cut into minibatches."""

from __future__ import annotations

from typing import Literal

__all__ = ["batch_sizes"]


def batch_sizes(rows: int, batch_size: int, last_batch: Literal["balance", "keep"] = "balance") -> list[int]:
    """Cut `rows` into minibatches of `batch_size`; the last one may be shorter.

    Parameters
    ----------
    rows, batch_size : int
        `rows` at least 0, `batch_size` at least 1.
    last_batch : {"balance", "keep"}
        "balance": a last batch of a single row shares with its neighbour, since batch normalisation
        refuses one row (with batches of 2 both become one of 3); "keep": it stays.

    Examples
    --------
    >>> batch_sizes(7, 3), batch_sizes(7, 3, "keep")
    ([3, 2, 2], [3, 3, 1])
    """
    full, rest = divmod(rows, batch_size)
    if last_batch == "balance" and rest == 1 and full and batch_size > 1:
        both = batch_size + 1
        shared = [both] if batch_size == 2 else [both - both // 2, both // 2]
        return [batch_size] * (full - 1) + shared
    return [batch_size] * full + [rest] * (rest > 0)
