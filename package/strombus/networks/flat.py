"""A module's trainable parameters as one contiguous vector whose views they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from strombus.errors import ConfigurationError

__all__ = [
    "FlatParameters",
    "flatten_",
    "module_tensors",
    "persistent_buffers",
    "read_buffers",
    "read_parameters",
    "to_numpy",
    "trainable",
    "write_buffers_",
    "write_parameters_",
]

_DTYPES = (torch.float16, torch.float32, torch.float64)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes, by name, tied ones once, in the order of ``parameters()``.

    Raises
    ------
    ConfigurationError
        When they have different types, a type NumPy does not know, no values yet, or share memory
        without being the same parameter.
    """
    found = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    for name, parameter in found.items():
        if isinstance(parameter, nn.UninitializedParameter) or parameter.is_meta:
            raise ConfigurationError(f"parameter {name} has no values yet: run one batch through the module first")
    dtypes = {name: parameter.dtype for name, parameter in found.items()}
    if len(set(dtypes.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise ConfigurationError(f"trainable parameters must have one type, got {listed}; cast the module with .to()")
    if not set(dtypes.values()) <= set(_DTYPES):
        raise ConfigurationError(
            f"trainable parameters must be float16, float32 or float64, got {next(iter(dtypes.values()))}; "
            "for mixed precision keep them float32 and give autocast=torch.bfloat16"
        )
    _check_disjoint(found)
    return found


def _check_disjoint(parameters: dict[str, nn.Parameter]) -> None:
    """Refuse different parameters over the same memory: flattening would untie them without a word."""
    spans = sorted(
        (parameter.data_ptr(), parameter.data_ptr() + parameter.numel() * parameter.element_size(), name)
        for name, parameter in parameters.items()
        if parameter.numel() and parameter.is_contiguous()
    )
    for (_, stop, first), (start, _, second) in pairwise(spans):
        if start < stop:
            raise ConfigurationError(
                f"parameters {first} and {second} share memory but are two parameters; "
                "tie them by assigning the same nn.Parameter to both"
            )


@dataclass
class FlatParameters:
    """Parameters laid end to end.

    Parameters
    ----------
    vector : Tensor, shape (n,)
        The values; what changes here changes in the module, and the other way round.
    parameters : tuple of Parameter
        The module's own parameters, now views of `vector`.
    names : tuple of str
    shapes : tuple of torch.Size
    offsets : tuple of int
        Where each parameter starts in `vector`.
    gradient : Tensor, shape (n,), or None
        The gradients as one vector, once `attach_gradient_` was called.
    """

    vector: Tensor
    parameters: tuple[nn.Parameter, ...]
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    offsets: tuple[int, ...]
    gradient: Tensor | None = field(default=None)

    def views(self, vector: Tensor) -> list[Tensor]:
        """Return the pieces of a vector of the same length in the parameters' shapes."""
        spans = zip(self.offsets, self.shapes, strict=True)
        return [vector[offset : offset + shape.numel()].view(shape) for offset, shape in spans]

    def named(self) -> dict[str, nn.Parameter]:
        """Return the parameters by name."""
        return dict(zip(self.names, self.parameters, strict=True))

    def attach_gradient_(self) -> Tensor:
        """Make every ``.grad`` a view of one vector of zeros and return that vector.

        Clear it with ``zero_()``; ``zero_grad(set_to_none=True)`` would detach it.
        """
        self.gradient = torch.zeros_like(self.vector)
        for parameter, view in zip(self.parameters, self.views(self.gradient), strict=True):
            parameter.grad = view
        return self.gradient

    def load_(self, values: NDArray[Any]) -> None:
        """Copy values into the vector, in place.

        Raises
        ------
        ConfigurationError
            When their number is not that of the parameters.
        """
        _check_length(len(values), len(self.vector))
        with torch.no_grad():
            self.vector.copy_(_readable(values))

    def read(self) -> NDArray[Any]:
        """Return a copy of the vector as a NumPy array."""
        return to_numpy(self.vector)


def flatten_(module: nn.Module) -> FlatParameters:
    """Lay the trainable parameters of `module` end to end; frozen ones stay where they are.

    The values are copied once, whatever their memory layout; afterwards each parameter is a
    contiguous view of the vector. Moving or casting the module (``.to()``) ends this: flatten it again.

    Raises
    ------
    ConfigurationError
        See `trainable`.
    """
    found = trainable(module)
    parameters = tuple(found.values())
    sizes = [parameter.numel() for parameter in parameters]
    offsets = tuple(sum(sizes[:i]) for i in range(len(sizes)))
    like = parameters[0] if parameters else torch.empty(0)
    vector = torch.empty(sum(sizes), dtype=like.dtype, device=like.device)
    flat = FlatParameters(vector, parameters, tuple(found), tuple(p.shape for p in parameters), offsets)
    with torch.no_grad():
        for parameter, view in zip(parameters, flat.views(vector), strict=True):
            view.copy_(parameter)
            parameter.data = view
    return flat


def read_parameters(module: nn.Module) -> NDArray[Any]:
    """Return the trainable parameters of a module that is not flattened as one new vector."""
    pieces = [parameter.detach().cpu().reshape(-1).numpy() for parameter in trainable(module).values()]
    return np.concatenate(pieces) if pieces else np.empty(0, np.float32)


def write_parameters_(module: nn.Module, values: NDArray[Any]) -> None:
    """Copy a flat vector into the trainable parameters of `module`, in place."""
    parameters = list(trainable(module).values())
    _check_length(len(values), sum(parameter.numel() for parameter in parameters))
    offset = 0
    with torch.no_grad():
        for parameter in parameters:
            piece = _readable(values[offset : offset + parameter.numel()])
            parameter.copy_(piece.view(parameter.shape))
            offset += parameter.numel()


def persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that belong to the module's state, by name, shared ones once."""
    kept = module.state_dict(keep_vars=True).keys()
    return {name: buffer for name, buffer in module.named_buffers() if name in kept}


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return all parameters, frozen ones too, and the persistent buffers by name, tied ones once."""
    return {**dict(module.named_parameters()), **persistent_buffers(module)}


def read_buffers(module: nn.Module) -> dict[str, NDArray[Any]]:
    """Return copies of the persistent buffers as NumPy arrays."""
    return {name: to_numpy(buffer) for name, buffer in persistent_buffers(module).items()}


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a copy of `tensor` on the CPU; bfloat16, which NumPy does not know, becomes float32."""
    tensor = tensor.detach()
    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return np.array(tensor.cpu().numpy(), copy=True, order="C")


def write_buffers_(module: nn.Module, values: Mapping[str, NDArray[Any]]) -> None:
    """Copy buffers into `module`, in place.

    Raises
    ------
    ConfigurationError
        When names or shapes differ from the module's.
    """
    buffers = persistent_buffers(module)
    if set(buffers) != set(values):
        differing = sorted(set(buffers) ^ set(values))
        raise ConfigurationError(f"the state's buffers are not those of the module; only one has {differing}")
    with torch.no_grad():
        for name, buffer in buffers.items():
            value = np.asarray(values[name])
            if value.shape != tuple(buffer.shape):
                raise ConfigurationError(f"buffer {name} has shape {tuple(buffer.shape)}, the state's {value.shape}")
            buffer.copy_(_readable(value))


def _readable(values: NDArray[Any]) -> Tensor:
    """Give torch an array it may read; values that came through an engine are often read-only."""
    array = np.asarray(values)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _check_length(got: int, wanted: int) -> None:
    if got != wanted:
        raise ConfigurationError(
            f"the module has {wanted} trainable parameters, the state {got}: "
            "it is the state of another architecture, or parameters were frozen or unfrozen since"
        )
