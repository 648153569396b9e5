"""Call a module on features and masks, and say what did not fit."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from strombus.errors import ConfigurationError, DataError
from strombus.networks.tensors import Masks, describe

__all__ = ["Forward"]

_INTEGERS = "; integers are indices, as for an embedding: make those that are quantities float32"


class Forward:
    """The call of one module: several inputs and outputs as tuples, masks where the module takes them.

    Parameters
    ----------
    module : nn.Module
        Called as ``module(*features)``. A parameter of its ``forward`` called `mask` or `features_mask`
        is given the only input's mask (or None), one called `masks` or `features_masks` the tuple of all.
    several : bool
        Whether the module may return a tuple or list of tensors.
    """

    def __init__(self, module: nn.Module, several: bool) -> None:
        self.module = module
        self.several = several
        names = inspect.signature(module.forward).parameters
        self._mask = next((name for name in ("mask", "features_mask") if name in names), None)
        self._masks = next((name for name in ("masks", "features_masks") if name in names), None)

    def __call__(self, features: tuple[Tensor, ...], masks: Masks) -> tuple[Tensor, ...]:
        """Return the outputs.

        Raises
        ------
        DataError
            When the module refuses the features; torch's own message, with the shapes that came.
        """
        keywords: dict[str, Any] = {}
        if self._mask is not None and len(masks) == 1:
            keywords[self._mask] = masks[0]
        if self._masks is not None:
            keywords[self._masks] = masks
        try:
            return self._outputs(self.module(*features, **keywords))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if isinstance(error, ConfigurationError):
                raise
            came = ", ".join(describe(tensor) for tensor in features)
            if any(mask is not None for mask in masks):
                came += f" with features_mask {', '.join(map(describe, masks))}"
            hint = "" if all(map(torch.is_floating_point, features)) else _INTEGERS
            raise DataError(
                f"the module {type(self.module).__name__} failed on features {came}: {error}{hint}"
            ) from error

    def _outputs(self, value: Any) -> tuple[Tensor, ...]:
        if isinstance(value, Tensor):
            return (value,)
        if self.several and isinstance(value, tuple | list) and all(isinstance(item, Tensor) for item in value):
            return tuple(value)
        wanted = "a tensor or a tuple of tensors" if self.several else "one tensor (ComputationGraph takes several)"
        raise ConfigurationError(f"the module must return {wanted}, got {type(value).__name__}")
