"""What is wrong with the arguments of a fit, found before anything is begun; `explain` refuses the same."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from strombus.data import LocalStream, NativeCollection, Source
from strombus.errors import ConfigurationError, DataError, kind_of
from strombus.networks import Network

__all__ = ["check_labels", "check_losses", "whole_number"]


def whole_number(name: str, value: Any, otherwise: str = "") -> int:
    """Return a number of at least 1, numpy's too, as an int; ConfigurationError, which names it, for anything else."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigurationError(f"{name} must be a whole number{otherwise}, got {kind_of(value)} {value!r}")
    if value < 1:
        raise ConfigurationError(f"{name} must be at least 1{otherwise}, got {value}")
    return int(value)


def check_losses(network: Network, validates: bool) -> None:
    """Raise ConfigurationError for a network without a loss to train, or to score validation data, by."""
    if network.objective is not None:
        return
    if network.training_step is None:
        raise ConfigurationError(
            "the network has no loss: give it one, such as loss=nn.CrossEntropyLoss(), or a training_step"
        )
    if validates:
        raise ConfigurationError(
            "validation data is scored by the network's loss, and it has a training_step alone: give it a loss too, or "
            "fit without validation"
        )


def check_labels(source: Source | LocalStream | NativeCollection | None, what: str) -> None:
    """Raise DataError for rows without labels; those that a transform may add are the workers' business."""
    labelled = not isinstance(source, Source) or source.transform or {"labels", "labels_0"} & source.columns.keys()
    if not labelled:
        raise DataError(f"fitting and scoring need labels, {what} has features alone")
