"""The interface of an encoder."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

__all__ = ["Encoder"]


class Encoder(BaseModel, ABC):
    """How an update is written; options only, see `strombus.compression.Compressor` for the work."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    name: ClassVar[str]
