"""Everything, uncompressed."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from strombus.compression.encoders.base import Encoded, Encoder
from strombus.compression.intake import Intake
from strombus.compression.wire import Parsed, pack_dense

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

    def encode_(self, intake: Intake) -> Encoded:
        """Take everything; see `Encoder.encode_`."""
        residual = intake.residual()
        values = residual.to(residual.dtype if self.dtype is None else getattr(torch, self.dtype), copy=True)
        intake.check(bool(torch.isfinite(values).all()))
        residual -= values
        sent = values.cpu().numpy()
        return Encoded(pack_dense(sent), Parsed.of_values(sent))
