"""Everything, uncompressed."""

from __future__ import annotations

from typing import ClassVar, Literal

from strombus.compression.encoders.base import Encoder

__all__ = ["DenseEncoder"]


class DenseEncoder(Encoder):
    """Send all elements: the reference that compression is measured against.

    Parameters
    ----------
    dtype : {"float16", "float32", "float64"}, optional
        Element type of what is sent; by default the parameters' own. What rounding takes away stays in the residual.
    """

    name: ClassVar[str] = "dense"

    dtype: Literal["float16", "float32", "float64"] | None = None
