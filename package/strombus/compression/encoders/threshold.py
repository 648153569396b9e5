"""Signs of what has reached a threshold."""

from __future__ import annotations

from typing import ClassVar

from strombus.compression.encoders.base import Encoded, Encoder
from strombus.compression.intake import Intake
from strombus.compression.wire import Parsed, pack_codes

__all__ = ["ThresholdEncoder"]


class ThresholdEncoder(Encoder):
    """Send the indices and signs of the elements whose residual has reached the threshold (Strom 2015).

    Gaps between indices are Golomb-Rice coded, with a sign bit each; from a share of about 0.6 on five elements a
    byte take less. Either form carries the same quanta, and the smaller one is sent.
    """

    name: ClassVar[str] = "threshold"

    def encode_(self, intake: Intake) -> Encoded:
        """Take the quanta, in the optimizer's own pass where thresholds are known before; see `Encoder.encode_`."""
        codes, count, thresholds = intake.quanta()
        return Encoded(pack_codes(codes, count, intake.length, thresholds), Parsed(count, thresholds))
