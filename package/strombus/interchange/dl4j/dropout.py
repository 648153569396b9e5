"""The noise that DL4J puts on a layer's input while it trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strombus.errors import DataError
from strombus.interchange.dl4j.fields import Fields, unread

__all__ = ["GaussianDropout", "GaussianNoise", "SpatialDropout", "read_dropout"]

PACKAGE = "org.deeplearning4j.nn.conf.dropout"
_SELU = (1.6732632423543772, 1.0507009873554805)
_KINDS = ("Dropout", "AlphaDropout", "SpatialDropout", "GaussianDropout", "GaussianNoise")


class GaussianDropout(nn.Module):
    """Multiply with noise of mean 1 and variance ``rate / (1 - rate)``."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Add noise while training."""
        return x * (1 + torch.randn_like(x) * (self.rate / (1 - self.rate)) ** 0.5) if self.training else x


class GaussianNoise(nn.Module):
    """Add noise of mean 0."""

    def __init__(self, stddev: float) -> None:
        super().__init__()
        self.stddev = stddev

    def forward(self, x: Tensor) -> Tensor:
        """Add noise while training."""
        return x + torch.randn_like(x) * self.stddev if self.training else x


class SpatialDropout(nn.Module):
    """Drop whole channels: of axes 0 and 1, all that is behind them."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels while training."""
        channels = x.new_ones(x.shape[0], x.shape[1], *(1,) * (x.ndim - 2))
        return x * F.dropout(channels, self.p, self.training)


def read_dropout(owner: Fields) -> nn.Module | None:
    """Read a layer's ``idropout``; DL4J's probability is that to keep, torch's that to drop."""
    fields = owner.child("idropout", None)
    if fields is None:
        return None
    kind = fields.kind(PACKAGE, {name: name for name in _KINDS}, "dropout")
    schedules = [fields.take(name, None) for name in ("pschedule", "rateSchedule", "stddevSchedule")]
    if any(schedules):
        if fields.options.training:
            raise fields.untrained("a dropout that changes with time")
        return None
    fields.ignore("helperAllowFallback", "alphaPrime", "a", "b", "lastPValue")
    for name, usual in (("alpha", _SELU[0]), ("lambda", _SELU[1])):
        if abs(fields.number(name, usual) - usual) > 1e-6:
            raise unread(fields.place, f"another {name} than that of SELU", f"set it to {usual} in DL4J")
    if kind == "GaussianNoise":
        made: nn.Module = GaussianNoise(fields.number("stddev"))
    elif kind == "GaussianDropout":
        made = GaussianDropout(_probability(fields, "rate", 0, 1))
    else:
        kept = _probability(fields, "p", 0, 1, right=True)
        if kept == 1:
            made = nn.Identity()
        else:
            classes = {"Dropout": nn.Dropout, "AlphaDropout": nn.AlphaDropout, "SpatialDropout": SpatialDropout}
            made = classes[kind](1 - kept)
    fields.done()
    return made


def _probability(fields: Fields, name: str, low: float, high: float, right: bool = False) -> float:
    value = fields.number(name)
    if not (low < value < high or (right and value == high)):
        raise DataError(f"{fields.place}: {name} must lie between {low} and {high}, got {value}")
    return value
