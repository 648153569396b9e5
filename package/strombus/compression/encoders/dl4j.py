"""DL4J's own messages."""

from __future__ import annotations

from typing import ClassVar

import torch

from strombus.compression.encoders.base import Encoded, Encoder
from strombus.compression.intake import Intake
from strombus.compression.wire import Parsed, pack_words
from strombus.interchange.dl4j.messages import take_words_

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
    one_threshold: ClassVar[bool] = True
    quantum_type: ClassVar[str | None] = "float32"

    def encode_(self, intake: Intake) -> Encoded:
        """Take one threshold's words; the residual is the same memory on the CPU, copied from another device."""
        (threshold,) = intake.thresholds()
        residual = intake.residual()
        host = residual.cpu().numpy()
        words, sent = take_words_(host, threshold)
        residual.copy_(torch.from_numpy(host))
        return Encoded(pack_words(words, len(host), host.dtype), Parsed.of_values(sent))
