"""DL4J's activation functions as torch modules; the formulas are those of ND4J's operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strombus.interchange.dl4j.fields import Fields, unread

__all__ = ["Activation", "along_channels", "read_activation"]

PACKAGE = "org.nd4j.linalg.activations"


class Activation(nn.Module):
    """A function without parameters.

    Parameters
    ----------
    name : str
        DL4J's, such as ``TanH``.
    **options
        Its numbers, such as ``alpha``.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self.name = name
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        """Compute it for each element; softmax along the last axis, of which arrays of two dimensions have no doubt."""
        if self.name == "RReLU":
            return F.rrelu(x, self.options["l"], self.options["u"], self.training)
        if self.name == "Softmax" and x.ndim != 2:
            raise ValueError(
                f"softmax of an array with {x.ndim} axes is read in output layers alone, DL4J's axis is unclear"
            )
        return _FUNCTIONS[self.name](x, **self.options)

    def extra_repr(self) -> str:
        """Return name and numbers."""
        return ", ".join([self.name, *(f"{name}={value}" for name, value in self.options.items())])


def along_channels(activation: Activation, x: Tensor) -> Tensor:
    """Compute an activation over axis 1, as output layers do for each time step or pixel."""
    if x.ndim == 2 or activation.name != "Softmax":
        return activation(x)  # type: ignore[no-any-return]
    return x.softmax(1)


def _relu(x: Tensor, max: float | None = None, threshold: float = 0.0, negative_slope: float = 0.0) -> Tensor:
    if max is None and not threshold and not negative_slope:
        return x.relu()
    y = torch.where(x >= threshold, x, negative_slope * (x - threshold))
    return y if max is None else y.clamp_max(max)


def _rational_tanh(x: Tensor) -> Tensor:
    y = 2 / 3 * x
    return 1.7159 * y.sign() * (1 - 1 / (1 + y.abs() + y**2 + 1.41645 * y**4))


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Cube": lambda x: x**3,
    "ELU": F.elu,
    "GELU": lambda x: x * (1.702 * x).sigmoid(),
    "HardSigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "HardTanH": F.hardtanh,
    "Identity": lambda x: x,
    "LReLU": F.leaky_relu,
    "Mish": F.mish,
    "RationalTanh": _rational_tanh,
    "ReLU": _relu,
    "ReLU6": F.relu6,
    "RectifiedTanh": lambda x: x.tanh().relu(),
    "SELU": F.selu,
    "Sigmoid": torch.sigmoid,
    "SoftPlus": lambda x: F.softplus(x, threshold=40),
    "SoftSign": F.softsign,
    "Softmax": lambda x: x.softmax(-1),
    "Swish": F.silu,
    "TanH": torch.tanh,
    "ThresholdedReLU": lambda x, theta: torch.where(x > theta, x, 0),
}


def _options(name: str, fields: Fields) -> dict[str, Any]:
    if name == "ELU":
        return {"alpha": fields.number("alpha", 1.0)}
    if name == "LReLU":
        return {"negative_slope": fields.number("alpha", 0.01)}
    if name == "GELU":
        fields.only("precise", False, "the formula of DL4J's precise GELU is not that of the paper; use precise=false")
    if name == "ReLU":
        return {
            "max": fields.number("max", None),
            "threshold": fields.number("threshold", 0.0),
            "negative_slope": fields.number("negativeSlope", 0.0),
        }
    if name == "RReLU":
        fields.ignore("alpha")  # the last draw
        return {"l": fields.number("l"), "u": fields.number("u")}
    if name == "ThresholdedReLU":
        return {"theta": fields.number("theta", 1.0)}
    return {}


def read_activation(owner: Fields, name: str = "activationFn", default: str | None = None) -> Activation:
    """Read the activation of a layer.

    Parameters
    ----------
    owner : Fields
        The layer.
    name : str
        Its property.
    default : str, optional
        What a missing one means.
    """
    fields = owner.child(name, None)
    if fields is None:
        if default is None:
            raise unread(owner.place, f"a layer without {name}", "give the layer an activation in DL4J")
        return Activation(default)
    known = {f"Activation{one}": one for one in (*_FUNCTIONS, "RReLU")}
    kind = fields.kind(PACKAGE, known, "activation")
    found = Activation(kind, **_options(kind, fields))
    fields.done()
    return found
