"""DL4J's own messages."""

from __future__ import annotations

from typing import ClassVar

from strombus.compression.encoders.base import Encoder

__all__ = ["Dl4jEncoder"]


class Dl4jEncoder(Encoder):
    """Send DL4J's sparse or bitmap message of 32-bit words, the shorter one (DL4J: ``EncodingHandler``).

    For comparisons: at a share of 1 % it takes four times the bytes of `ThresholdEncoder`. The words are DL4J's; what
    goes out differs where DL4J loses something. It takes quanta out of the residual for a sparse message that it then
    throws away for a bitmap, and never sends one element alone; here the message is chosen before the residual changes.
    As in DL4J a bitmap also sends minus half the threshold where a negative value has reached that, and no plus.
    There is one threshold for the model, rounded to float32.
    """

    name: ClassVar[str] = "dl4j"
