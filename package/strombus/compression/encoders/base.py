"""The interface of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from strombus.compression.intake import Intake
from strombus.compression.wire import Parsed
from strombus.errors import WireError

__all__ = ["Encoded", "Encoder"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """An update as the peers get it, and what they will read in it.

    Parameters
    ----------
    payload : bytearray
        Written by a function of `strombus.compression.wire`: ``pack_own`` for a form of the encoder's own.
    sent : Parsed
        What was taken out of the residual, to the last bit what peers read.
    """

    payload: bytearray
    sent: Parsed


class Encoder(BaseModel, ABC):
    """How an update is written.

    Attributes
    ----------
    one_threshold : bool
        Whether what is written has room for one threshold only.
    quantum_type : str or None
        NumPy's name of what peers read a threshold as; None for the parameters' own type.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )

    name: ClassVar[str]
    one_threshold: ClassVar[bool] = False
    quantum_type: ClassVar[str | None] = None

    @abstractmethod
    def encode_(self, intake: Intake) -> Encoded:
        """Take an optimizer's step into the residual and what is to be sent out of it.

        Raises
        ------
        NonFiniteError
            Where something infinite or NaN would be sent.
        """

    def read(self, body: NDArray[np.uint8], length: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return all elements of an update that a peer has written with ``pack_own``; trust nothing in it.

        Parameters
        ----------
        body : ndarray of uint8
        length : int
            Elements that the update must have.
        dtype : dtype
            Of the parameters; what is returned may be of another floating type.

        Raises
        ------
        WireError
            When the body is damaged.
        """
        raise WireError(f"the encoder {self.name!r} has no form of its own to read")
