"""What a worker trains: its own copy of a network, one minibatch at a time."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from strombus.errors import ConfigurationError, DataError, NonFiniteError
from strombus.networks.clipping import Clipping
from strombus.networks.copies import DRAWING
from strombus.networks.devices import resolve_device
from strombus.networks.finiteness import (
    explain_gradient,
    explain_loss,
    explain_parameters,
    gradient_norm,
    is_finite,
)
from strombus.networks.flat import flatten_, read_buffers, write_buffers_
from strombus.networks.forward import Forward
from strombus.networks.normalizing import normalized, reverted
from strombus.networks.objective import Objective
from strombus.networks.regularization import Regularization
from strombus.networks.tensors import Masks, Tensors, as_inputs, to_tensors
from strombus.networks.training_step import own_loss
from strombus.networks.updater import read_updater, write_updater_
from strombus.types import DataSet, MultiDataSet, NetworkState, UpdaterState

if TYPE_CHECKING:
    from strombus.networks.network import Network

__all__ = ["Replica", "StepResult"]

Batch = DataSet | MultiDataSet


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one minibatch gave.

    `loss` is the mean loss plus the regularisation terms, before the step; `count` is what the mean is
    over (see `strombus.networks.losses.Loss`); `examples` is the number of rows.
    """

    loss: float
    count: float
    examples: int


class Replica:
    """An independent working copy of a network; made by ``network.replica()``.

    Parameters
    ----------
    network : Network
    device : str or torch.device, optional
        Where to compute; by default as the network says ("auto": a GPU of this process's own where there are some).

    Attributes
    ----------
    module : nn.Module
        The copy; its trainable parameters are views of ``flat.vector``.
    flat : FlatParameters
    iteration : int
        Minibatches on this copy's path.
    """

    def __init__(self, network: Network, device: str | torch.device | None = None) -> None:
        self.device = resolve_device(network.device if device is None else device)
        self.module = network.copy_module().to(self.device)
        self.flat = flatten_(self.module)
        self.dtype = network.dtype
        self.several = network.several
        self.iteration = network.iteration
        self.objective = None if network.objective is None else network.objective.to(self.device)
        self._network = network
        self._regularization = Regularization(network.l1, network.l2, network.weight_decay)
        self._clipping = Clipping(network.clip_grad_norm, network.clip_grad_value)
        self._forward = Forward(self.module, network.several)
        self._optimizer: Optimizer | None = None
        self._schedule: LRScheduler | None = None
        self._closure = False
        if network.updater is not None and network.optimizer is not None:
            self._load_updater(network.updater)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer over ``flat.parameters``; made on first use."""
        return self._made()[0] if self._optimizer is None else self._optimizer

    @property
    def schedule(self) -> LRScheduler | None:
        """The learning-rate schedule over `optimizer`, if the network has one."""
        return self._made()[1] if self._optimizer is None else self._schedule

    def load(self, state: NetworkState, updater: bool = True) -> None:
        """Copy a state in, in place.

        Parameters
        ----------
        state : NetworkState
        updater : bool
            Whether the optimizer follows: it takes ``state.updater``, or starts afresh where that is None.
            False leaves the optimizer as it is.

        Raises
        ------
        ConfigurationError
            When the state is that of another architecture or optimizer.
        """
        self.flat.load_(state.parameters)
        write_buffers_(self.module, state.buffers)
        self.iteration = state.iteration
        if not updater or self._network.optimizer is None:
            return
        if state.updater is None:
            self._optimizer = self._schedule = None
        else:
            self._load_updater(state.updater)

    def state(self, updater: bool = True) -> NetworkState:
        """Return copies of everything that training changes; `updater` says whether the optimizer's are among them."""
        kept = self._read_updater() if updater and self._network.optimizer is not None else None
        return NetworkState(self.flat.read(), read_buffers(self.module), kept, self.iteration)

    def fit(self, batch: Batch, check_gradient: bool = False) -> StepResult:
        """Take one step of the optimizer on one minibatch.

        Parameters
        ----------
        check_gradient : bool
            Whether a gradient that is not finite raises too.

        Raises
        ------
        ConfigurationError
            When the network has no loss or no optimizer.
        DataError
            When the minibatch does not fit the module or the loss.
        NonFiniteError
            When the loss is not finite, or the gradient where it is checked; parameters and optimizer are then as
            before the step, but of an optimizer that evaluates the loss itself (LBFGS).
        """
        optimizer = self.optimizer
        if not self.module.training:
            self.module.train()
        tensors = self._tensors(batch)
        if self._closure:
            results: list[tuple[float, float]] = []

            def closure() -> float:
                results.append(self._gradients(tensors, batch, check_gradient))
                return results[-1][0]

            optimizer.step(closure)
            loss, count = results[0]
        else:
            loss, count = self._gradients(tensors, batch, check_gradient)
            optimizer.step()
        self.advance()
        return StepResult(loss, count, tensors.examples)

    def gradients(self, batch: Batch, check_gradient: bool = False) -> StepResult:
        """Leave the minibatch's gradients on ``flat.parameters``; `advance` is due once they are used.

        Parameters
        ----------
        check_gradient : bool
            Whether gradients that are not finite raise, as a loss does.

        Raises
        ------
        ConfigurationError, DataError, NonFiniteError
            See `fit`; for an optimizer that evaluates the loss itself (LBFGS) too.
        """
        self.check_gradients()
        if not self.module.training:
            self.module.train()
        tensors = self._tensors(batch)
        loss, count = self._gradients(tensors, batch, check_gradient)
        return StepResult(loss, count, tensors.examples)

    def check_gradients(self) -> None:
        """Raise ConfigurationError without a loss, trainable parameters or an optimizer that takes gradients."""
        if self._network.training_step is None:
            self._objective()
        kind = type(self.optimizer).__name__
        if self.evaluates_loss:
            raise ConfigurationError(
                f"{kind} evaluates the loss itself and has no single update per minibatch to share; "
                "use another optimizer, or ParameterAveragingTrainingMaster"
            )

    def begin_epoch(self, epoch: int) -> None:
        """Tell a schedule that counts epochs which one the following minibatches belong to."""
        begin = getattr(self.schedule if self._network.schedule is not None else None, "begin_epoch", None)
        if begin is not None:
            begin(epoch)

    @property
    def evaluates_loss(self) -> bool:
        """Whether the optimizer evaluates the loss itself, as often as it likes (LBFGS)."""
        return self.optimizer is not None and self._closure

    def advance(self) -> None:
        """Count a minibatch whose gradients were used, and step the schedule."""
        if self._schedule is not None:
            self._schedule.step()
        self.iteration += 1

    def buffers(self) -> dict[str, Tensor]:
        """Return copies of the module's buffers, for `leave_out`."""
        return {name: buffer.clone() for name, buffer in self.module.named_buffers()}

    def leave_out(self, buffers: Mapping[str, Tensor]) -> None:
        """Count a minibatch that changes nothing: its schedule goes on, the module's buffers become `buffers` again."""
        with torch.no_grad():
            for name, before in buffers.items():
                self.module.get_buffer(name).copy_(before)
        # A learning-rate schedule looks here for whether the optimizer came first.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        self.advance()

    def twin(self) -> Replica:
        """Return another copy for forward passes at the same time; it shares this one's parameters and never trains."""
        twin = copy.copy(self)
        twin.module = self._network.copy_module().to(self.device)
        for mine, theirs in zip(self.module.parameters(), twin.module.parameters(), strict=True):
            theirs.data = mine.data
        write_buffers_(twin.module, read_buffers(self.module))
        twin._forward = Forward(twin.module, self.several)
        twin._optimizer = twin._schedule = None
        return twin

    def forward(self, features: Any, masks: Any = None) -> Any:
        """Return the module's output in evaluation mode, without gradients.

        Parameters
        ----------
        features : DataSet, MultiDataSet, array or sequence of arrays
            A sequence of arrays is for a network with several inputs.
        masks : array or sequence, optional
            The features' masks; those of a data set are its own.

        Returns
        -------
        Tensor or tuple of Tensor
            A tuple for `ComputationGraph`; floating outputs have the network's dtype, and the labels' own units where
            its normalizer scales labels.
        """
        given = isinstance(features, DataSet | MultiDataSet)
        tensors = self._converted(features if given else as_inputs(features, masks, self.several))
        outputs = reverted(self._network.normalizer, self._evaluate(tensors.features, tensors.features_masks))
        return outputs if self.several else outputs[0]

    def score(self, batch: Batch) -> tuple[float, float]:
        """Return the minibatch's mean loss in evaluation mode, without regularisation, and its count."""
        tensors = self._tensors(batch)
        outputs = self._evaluate(tensors.features, tensors.features_masks)
        with torch.no_grad():
            value, count = self._objective().mean(outputs, tensors)
        return float(value), count

    def sums(self, batch: Batch) -> list[tuple[float, float]]:
        """Return each output's sum of losses in evaluation mode, without regularisation, and their count."""
        tensors = self._tensors(batch)
        outputs = self._evaluate(tensors.features, tensors.features_masks)
        with torch.no_grad():
            return self._objective().sums(outputs, tensors)

    def per_example(self, batch: Batch, regularization: bool = False) -> np.ndarray[Any, Any]:
        """Return the loss of each example in evaluation mode, shape (examples,), the network's dtype.

        `regularization` adds the regularisation terms to each figure, as DL4J's ``scoreExamples`` does.
        """
        tensors = self._tensors(batch)
        outputs = self._evaluate(tensors.features, tensors.features_masks)
        with torch.no_grad():
            scores = self._objective().per_example(outputs, tensors)
        figures: np.ndarray[Any, Any] = scores.cpu().numpy()
        return figures + figures.dtype.type(self.regularization()) if regularization else figures

    def regularization(self) -> float:
        """Return the regularisation terms of the values as they are; see `strombus.networks.Network`."""
        return self._regularization.value(self.flat.named())

    def _made(self) -> tuple[Optimizer, LRScheduler | None]:
        """Make optimizer and schedule, and see whether a step needs a closure (LBFGS)."""
        optimizer, schedule = self._network.make_optimizer(list(self.flat.parameters))
        closure = inspect.signature(type(optimizer).step).parameters.get("closure")
        self._closure = closure is not None and closure.default is inspect.Parameter.empty
        self._optimizer, self._schedule = optimizer, schedule
        return optimizer, schedule

    def _gradients(self, batch: Tensors, source: Batch, check_gradient: bool) -> tuple[float, float]:
        """Leave the minibatch's gradient, clipped, on the parameters; return its loss and count."""
        parameters = self.flat.parameters
        for parameter in parameters:
            parameter.grad = None
        slices = self._network.accumulate
        with DRAWING.hold():
            loss, count = self._backward(batch) if slices == 1 else self._accumulate(batch, slices)
        if self._network.normalize_gradients is not None:
            self._network.normalize_gradients(self.flat.named())
        if self._regularization:
            loss += self.regularization()
            self._regularization.add_gradient_(self.flat.named())
        if not math.isfinite(loss):
            raise NonFiniteError(*explain_loss(loss, self.iteration, source, self.flat.named()))
        norm = self._clipping.clip_(parameters)
        if check_gradient:
            self._check_gradient(loss, gradient_norm(parameters) if norm is None else norm)
        return loss, count

    def check_parameters(self) -> None:
        """Raise NonFiniteError unless the parameters are finite, for a check after a step."""
        if not is_finite(self.flat.vector):
            raise NonFiniteError(explain_parameters(self.iteration - 1, self.flat.named()), "parameters")

    def _check_gradient(self, loss: float, norm: Tensor) -> None:
        if not math.isfinite(norm.item()):
            gradients = {name: one.grad for name, one in self.flat.named().items() if one.grad is not None}
            raise NonFiniteError(explain_gradient(loss, self.iteration, gradients), "gradient")

    def _backward(self, batch: Tensors) -> tuple[float, float]:
        value, count = self._mean(batch)
        torch.autograd.backward(value)
        return value.item(), count

    def _accumulate(self, batch: Tensors, slices: int) -> tuple[float, float]:
        """Add up the gradients of slices, each by its count: the minibatch's gradient in less memory."""
        total, counts = 0.0, 0.0
        for piece in batch.slices(slices):
            value, count = self._mean(piece)
            torch.autograd.backward(value * count)
            total += value.item() * count
            counts += count
        gradients = [parameter.grad for parameter in self.flat.parameters if parameter.grad is not None]
        if counts:
            torch._foreach_div_(gradients, counts)
        return total / counts if counts else total, counts

    def _mean(self, batch: Tensors) -> tuple[Tensor, float]:
        with self._precision():
            if self._network.training_step is not None:
                return own_loss(self._network.training_step, self.module, batch, self.several)
            outputs = self._forward(batch.features, batch.features_masks)
            return self._objective().mean(outputs, batch)

    def _evaluate(self, features: tuple[Tensor, ...], masks: Masks) -> tuple[Tensor, ...]:
        if self.module.training:
            self.module.eval()
        with torch.no_grad(), self._precision():
            outputs = self._forward(features, masks)
        return tuple(output.to(self.dtype) if output.is_floating_point() else output for output in outputs)

    def _precision(self) -> AbstractContextManager[Any]:
        dtype = self._network.autocast
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def _converted(self, batch: Batch) -> Tensors:
        return to_tensors(normalized(self._network.normalizer, batch, self.dtype), self.dtype, self.device)

    def _tensors(self, batch: Batch) -> Tensors:
        tensors = self._converted(batch)
        if not tensors.labels and self._network.training_step is None:
            raise DataError("fitting and scoring need labels, the data has features alone")
        if not tensors.examples:
            raise DataError("a minibatch needs at least one example, got none")
        return tensors

    def _objective(self) -> Objective:
        if self.objective is None:
            raise ConfigurationError("the network has no loss; give it one, such as loss=nn.CrossEntropyLoss()")
        return self.objective

    def _read_updater(self) -> UpdaterState:
        return read_updater(self.optimizer, self.flat.parameters, self.schedule)

    def _load_updater(self, state: UpdaterState) -> None:
        write_updater_(state, self.optimizer, self.flat.parameters, self.schedule)
