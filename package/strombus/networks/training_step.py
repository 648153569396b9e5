"""A training step of the user's own: from a module and a minibatch to a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from strombus.errors import ConfigurationError
from strombus.networks.tensors import Tensors, describe

__all__ = ["Minibatch", "TrainingStep", "own_loss"]


class Minibatch(NamedTuple):
    """What a training step is given, on the device and in the types that a module takes.

    Parameters
    ----------
    features, labels, features_mask, labels_mask : Tensor or tuple of Tensor
        One tensor each for a `MultiLayerNetwork`, tuples for a `ComputationGraph`; None, or an empty tuple, for labels
        that the data has not, None for such a mask.
    """

    features: Any
    labels: Any
    features_mask: Any
    labels_mask: Any


TrainingStep = Callable[[nn.Module, Minibatch], Any]


def own_loss(step: TrainingStep, module: nn.Module, batch: Tensors, several: bool) -> tuple[Tensor, float]:
    """Return the loss that a step computes, and the count that it is a mean over: by default the examples.

    Raises
    ------
    ConfigurationError
        When it returns something else than a scalar that can be differentiated, or such a one and a count.
    """
    columns = batch.features, batch.labels, batch.features_masks, batch.labels_masks
    given = Minibatch(*columns) if several else Minibatch(*(column[0] if column else None for column in columns))
    value = step(module, given)
    loss, count = value if isinstance(value, tuple) and len(value) == 2 else (value, batch.examples)
    if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
        got = describe(loss) if isinstance(loss, Tensor) else type(loss).__name__
        detail = ", which does not depend on any parameter" if isinstance(loss, Tensor) and not loss.ndim else ""
        raise ConfigurationError(
            f"training_step must return the mean loss as a scalar tensor, or (loss, count); got {got}{detail}"
        )
    try:
        weight = float(count)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise ConfigurationError(f"the count that training_step returns must be a number of at least 0, got {count!r}")
    return loss, weight
