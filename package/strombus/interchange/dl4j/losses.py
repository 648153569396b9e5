"""DL4J's loss functions: sums over the outputs and time steps of an example; the mean is over the examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strombus.documents import shorten
from strombus.errors import DataError
from strombus.interchange.dl4j.activations import Activation
from strombus.interchange.dl4j.fields import Fields, unread

__all__ = ["OutputLoss", "read_loss"]

PACKAGE = "org.nd4j.linalg.lossfunctions"
_EPSILON = 1e-5
"""What DL4J lets no probability or norm fall below (``Nd4j.EPS_THRESHOLD``)."""

Judges = Literal["classes", "yes or no", "values"]


class OutputLoss(nn.Module):
    """The loss of one output, over what the output layer gives after its activation.

    Parameters
    ----------
    name : str
        DL4J's, such as ``LossMCXENT``.
    clip : float
        Probabilities are kept this far from 0 and 1.
    weights : sequence of float, optional
        One for each output.

    Notes
    -----
    Where DL4J clips a probability for the score alone, gradients are those of the value that is not clipped.
    """

    def __init__(self, name: str, clip: float = 0.0, weights: list[float] | None = None) -> None:
        super().__init__()
        self.name = name
        self.clip = clip
        self.register_buffer("weights", None if weights is None else torch.tensor(weights, dtype=torch.float64))
        self.judges: Judges = _JUDGES.get(name, "values")

    def forward(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each example, shape (examples,)."""
        return self.per_example(output, labels)

    def per_example(self, output: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss of each example, shape (examples,).

        Parameters
        ----------
        output, labels : Tensor, shape (examples, outputs, ...)
            Labels of `LossSparseMCXENT` are class numbers, shape (examples, 1, ...) or (examples, ...).
        mask : Tensor, optional
            Shape (examples,), (examples, 1), (examples, ...) without the outputs' axis, or that of the output.
        """
        labels = self._labels(output, labels)
        terms = _TERMS[self.name](self, output, labels)
        weights = self.weights
        if isinstance(weights, Tensor):
            if len(weights) != output.shape[1]:
                raise ValueError(f"{self.name} has weights for {len(weights)} outputs, there are {output.shape[1]}")
            terms = terms * weights.to(terms.dtype).view(1, -1, *(1,) * (terms.ndim - 2))
        if mask is not None:
            weight = self._mask(mask, terms)
            terms = torch.where(weight != 0, terms, 0) * weight
        return terms.flatten(1).sum(1)

    def takes(self, output: Tensor, labels: Tensor, mask: Tensor) -> bool:
        """Say whether a mask has an entry for each step of the output."""
        return output.ndim == 3 and mask.shape == output.shape[:1] + output.shape[2:]

    def extra_repr(self) -> str:
        """Return DL4J's name."""
        return self.name

    def _labels(self, output: Tensor, labels: Tensor) -> Tensor:
        if self.name == "LossSparseMCXENT":
            numbers = labels.squeeze(1) if labels.ndim == output.ndim and labels.shape[1] == 1 else labels
            if numbers.shape != output.shape[:1] + output.shape[2:]:
                raise ValueError("class numbers are wanted, one for each example or step")
            return F.one_hot(numbers.long(), output.shape[1]).movedim(-1, 1).to(output.dtype)
        if labels.shape != output.shape:
            raise ValueError("labels of the output's shape are wanted")
        return labels.to(output.dtype)

    @staticmethod
    def _mask(mask: Tensor, terms: Tensor) -> Tensor:
        if mask.shape == terms.shape or (mask.ndim == terms.ndim == 4 and mask.shape[1] == 1):
            return mask
        if mask.shape == terms.shape[:1] + terms.shape[2:]:
            return mask.unsqueeze(1)
        if mask.shape in (terms.shape[:1], (len(terms), 1)):
            return mask.reshape(-1, *(1,) * (terms.ndim - 1))
        raise ValueError(f"a labels mask of shape {tuple(mask.shape)} does not fit it")


def _kept(score: Tensor, gradient: Tensor) -> Tensor:
    """Give the values of `score` and the gradients of `gradient`."""
    return gradient + (score - gradient).detach()


def _cross_entropy(loss: OutputLoss, output: Tensor, labels: Tensor) -> Tensor:
    if not loss.clip:
        return -labels * output.log()
    score = output.clamp(loss.clip, 1 - loss.clip).log()
    return -labels * _kept(score, output.clamp_min(torch.finfo(output.dtype).tiny).log())


def _binary_cross_entropy(loss: OutputLoss, output: Tensor, labels: Tensor) -> Tensor:
    p = _kept(output.clamp(loss.clip, 1 - loss.clip), output) if loss.clip else output
    return -(labels * p.log() + (1 - labels) * (1 - p).log())


def _divergence(_: OutputLoss, output: Tensor, labels: Tensor) -> Tensor:
    p, y = output.clamp(_EPSILON, 1), labels.clamp(_EPSILON, 1)
    return _kept(y * (y / p).log(), -labels * output.clamp_min(torch.finfo(output.dtype).tiny).log())


def _cosine(_: OutputLoss, output: Tensor, labels: Tensor) -> Tensor:
    lengths = [torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(_EPSILON) for x in (output, labels)]
    cosines: Tensor = output * labels / lengths[0] / lengths[1]
    return -cosines


_TERMS: dict[str, Callable[[OutputLoss, Tensor, Tensor], Tensor]] = {
    "LossBinaryXENT": _binary_cross_entropy,
    "LossCosineProximity": _cosine,
    "LossHinge": lambda _, p, y: (1 - y * p).relu(),
    "LossKLD": _divergence,
    "LossL1": lambda _, p, y: (p - y).abs(),
    "LossL2": lambda _, p, y: (p - y).square(),
    "LossMAE": lambda _, p, y: (p - y).abs() / p.shape[1],
    "LossMAPE": lambda _, p, y: 100 * ((y - p) / y).abs() / p.shape[1],
    "LossMCXENT": _cross_entropy,
    "LossMSE": lambda _, p, y: (p - y).square() / p.shape[1],
    "LossMSLE": lambda _, p, y: ((p + 1) / (y + 1)).log().square() / p.shape[1],
    "LossNegativeLogLikelihood": _cross_entropy,
    "LossPoisson": lambda _, p, y: p - y * p.log(),
    "LossSparseMCXENT": _cross_entropy,
    "LossSquaredHinge": lambda _, p, y: (1 - y * p).relu().square(),
    "LossWasserstein": lambda _, p, y: p * y / p.shape[1],
}

_ENTROPIES = ("LossMCXENT", "LossNegativeLogLikelihood", "LossSparseMCXENT")
_JUDGES: dict[str, Judges] = {**dict.fromkeys(_ENTROPIES, "classes"), "LossBinaryXENT": "yes or no"}


def read_loss(owner: Fields, activation: Activation) -> OutputLoss:
    """Read the ``lossFn`` of an output layer, which has `activation`."""
    fields = owner.child("lossFn")
    assert fields is not None
    name = fields.kind(PACKAGE, {name: name for name in _TERMS}, "loss")
    softmax = activation.name == "Softmax"
    clip = 0.0
    if name in _ENTROPIES:
        clip = fields.number("softmaxClipEps", 1e-10)
        clip = clip if softmax else 0.0
    elif name == "LossBinaryXENT":
        clip = fields.number("clipEps", 1e-5)
        if softmax:
            raise unread(owner.place, "LossBinaryXENT with softmax", "use a sigmoid, or LossMCXENT, in DL4J")
    if not 0 <= clip <= 0.5:
        raise DataError(f"{fields.place}: the clipping must lie between 0 and 0.5, got {clip}")
    weights = fields.take("weights", None)
    if weights is not None and not (isinstance(weights, list) and all(isinstance(w, int | float) for w in weights)):
        raise DataError(f"{fields.place}: weights must be a list of numbers, got {shorten(weights)}")
    fields.done()
    return OutputLoss(name, clip, weights)
