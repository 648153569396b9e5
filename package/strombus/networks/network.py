"""A network as the driver holds it: a module, its loss, its optimizer and the counters of its training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, Self

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from strombus.errors import ConfigurationError
from strombus.interchange.dl4j.records import Origin
from strombus.networks import checks
from strombus.networks.copies import read_values, rebuild
from strombus.networks.flat import (
    read_buffers,
    read_parameters,
    to_numpy,
    trainable,
    write_buffers_,
    write_parameters_,
)
from strombus.networks.forward import Forward
from strombus.networks.losses import Loss
from strombus.networks.normalizing import normalized, reverted
from strombus.networks.objective import LossFunction, Objective
from strombus.networks.regularization import Amount, Regularization
from strombus.networks.replica import Replica
from strombus.networks.tensors import as_inputs, to_tensors
from strombus.networks.training_step import TrainingStep
from strombus.networks.updater import check_updater, renumber_updater
from strombus.normalizers import Normalizer
from strombus.types import NetworkState, UpdaterState

__all__ = ["ComputationGraph", "MultiLayerNetwork", "Network"]

OptimizerFactory = Callable[[Any], Optimizer]
ScheduleFactory = Callable[[Optimizer], LRScheduler]

_FIT = "_fit"
"""The attribute of a network that is in a fit."""


class Network:
    """Base of `MultiLayerNetwork` and `ComputationGraph`, which say how many outputs there are.

    Parameters
    ----------
    module : nn.Module or callable
        A module, of which a copy is made, or a function without arguments that makes one; it is called
        once, here. Pickled networks carry the values, so that every worker starts from the same ones.
    loss : callable or sequence of callable, optional
        See `strombus.networks.losses.Loss`. Without one the network can only predict.
    optimizer : callable, optional
        ``optimizer(parameters)`` makes the ``torch.optim.Optimizer``: its class, or
        ``functools.partial(torch.optim.SGD, lr=0.1)``. Only fitting needs one. One with a true attribute
        ``by_name`` is given pairs of name and parameter.
    schedule : callable, optional
        ``schedule(optimizer)`` makes a torch ``LRScheduler``, stepped once for each minibatch. Where it has a
        method ``begin_epoch``, that is told the number of each epoch, from 0.
    l1, l2 : float or mapping
        Regularisation of the weights (trainable parameters of two dimensions or more, so no biases):
        ``l1 * sum|W| + l2 / 2 * sum W**2`` is added to the loss, as in DL4J. A mapping gives each parameter that
        it names its own.
    device : str or torch.device
        Where a worker computes: ``"auto"`` takes a GPU where there are some, each process of a host its own as far as
        they go round. The driver's copy is on the CPU.
    autocast : torch.dtype or str, optional
        ``torch.bfloat16`` computes forward passes and losses in mixed precision.
    accumulate : int
        Slices in which a minibatch is computed before the one step it gives.
    normalizer : Normalizer, optional
        A fitted one, such as ``strombus.data.NormalizerStandardize().fit(data)``. Workers scale every minibatch by it
        for training, scoring, evaluation and inference; it is saved and loaded with the network. Where it scales
        labels, losses are those of scaled labels; outputs and metrics are in the labels' own units.
    weight_decay : float or mapping
        What the optimizer decays weights by; it counts in scores as `l2` does, as in DL4J, and adds no gradient.
    normalize_gradients : callable, optional
        ``normalize_gradients(parameters by name)`` changes a minibatch's gradients in place, before the terms of `l1`
        and `l2` are added: it clips them, say.
    clip_grad_norm, clip_grad_value : float, optional
        Before each step, and regularisation included, gradients are scaled down to this 2-norm of all of them together,
        or each element is brought within plus and minus this value, as torch's functions of these names do.
    training_step : callable, optional
        ``training_step(module, minibatch)`` gives the loss that is minimised where it takes more than
        ``loss(module(features), labels)``: a scalar, or (scalar, count) where it is a mean over something else than the
        examples; see `Minibatch`. `loss` is still what scoring, validation and evaluation go by.

    Attributes
    ----------
    iteration, epoch : int
        Minibatches on the longest worker's path, and passes over the data, since the network was made.
    score : float or None
        The last mean loss that training reported.
    dl4j : Origin or None
        What a network of `strombus.load_dl4j` was read from.

    Raises
    ------
    ConfigurationError
        For arguments that cannot work.
    """

    several = False

    def __init__(
        self,
        module: nn.Module | Callable[[], nn.Module],
        loss: Any = None,
        optimizer: OptimizerFactory | None = None,
        *,
        schedule: ScheduleFactory | None = None,
        l1: Amount = 0.0,
        l2: Amount = 0.0,
        device: str | torch.device = "auto",
        autocast: torch.dtype | str | None = None,
        accumulate: int = 1,
        normalizer: Normalizer | None = None,
        weight_decay: Amount = 0.0,
        normalize_gradients: Callable[[Mapping[str, nn.Parameter]], None] | None = None,
        clip_grad_norm: float | None = None,
        clip_grad_value: float | None = None,
        training_step: TrainingStep | None = None,
    ) -> None:
        self._factory = None if isinstance(module, nn.Module) else module
        self.module = checks.make_module(module)
        self.optimizer = checks.optimizer_factory(optimizer)
        self.schedule = checks.schedule_factory(schedule, optimizer)
        self.l1 = checks.penalty("l1", l1, self.module)
        self.l2 = checks.penalty("l2", l2, self.module)
        self.weight_decay = checks.penalty("weight_decay", weight_decay, self.module)
        self.device = checks.device_name(device)
        self.autocast = checks.autocast_dtype(autocast)
        self.accumulate = checks.at_least_one("accumulate", accumulate)
        self.normalize_gradients = checks.function_or_none("normalize_gradients", normalize_gradients)
        self.clip_grad_norm = checks.positive_or_none("clip_grad_norm", clip_grad_norm)
        self.clip_grad_value = checks.positive_or_none("clip_grad_value", clip_grad_value)
        checks.one_at_most(clip_grad_norm=clip_grad_norm, clip_grad_value=clip_grad_value)
        self.normalizer = normalizer
        self.training_step = checks.training_step(training_step)
        self.objective = self._make_objective(loss)
        self.iteration = 0
        self.epoch = 0
        self.score: float | None = None
        self.dl4j: Origin | None = None
        self._updater: UpdaterState | None = None
        self._updater_names: tuple[str, ...] = ()  # of the parameters that were trainable when it was made
        parameters = list(trainable(self.module).values())
        if self.optimizer is not None:
            self.make_optimizer(parameters)

    def _make_objective(self, loss: Any) -> Objective | None:
        return None if loss is None else Objective([Loss(loss)])

    @property
    def normalizer(self) -> Normalizer | None:
        """What scales every minibatch; another one may be set, or None."""
        return self._normalizer

    @normalizer.setter
    def normalizer(self, normalizer: Normalizer | None) -> None:
        self._normalizer = checks.normalizer(normalizer)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the trainable parameters, or of the first floating parameter where none is trainable."""
        candidates = [*trainable(self.module).values(), *self.module.parameters()]
        return next((p.dtype for p in candidates if p.is_floating_point()), torch.get_default_dtype())

    @property
    def classifies(self) -> bool:
        """Whether the first output's loss is one over classes (cross entropy, NLL)."""
        return self.objective is not None and self.objective.losses[0].judges == "classes"

    @property
    def updater(self) -> UpdaterState | None:
        """The optimizer's state for the parameters that are trainable now, None before the first fit."""
        if self._updater is None:
            return None
        return renumber_updater(self._updater, self._updater_names, tuple(trainable(self.module)))

    def restore_updater(self, state: UpdaterState | None) -> None:
        """Take over an optimizer's state; None starts it afresh.

        Raises
        ------
        ConfigurationError
            When it is the state of another optimizer, schedule or architecture.
        """
        if state is not None and self.optimizer is not None:
            parameters = list(trainable(self.module).values())
            optimizer, schedule = self.make_optimizer(parameters)
            check_updater(state, optimizer, parameters, schedule)
        self._keep_updater(state)

    def reset_updater(self) -> None:
        """Forget the optimizer's state."""
        self.restore_updater(None)

    def _keep_updater(self, state: UpdaterState | None) -> None:
        self._updater, self._updater_names = state, tuple(trainable(self.module))

    def num_params(self, trainable_only: bool = False) -> int:
        """Return the number of parameter values, tied ones once; frozen ones count unless `trainable_only`."""
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad or not trainable_only)

    def state(self, updater: bool = True) -> NetworkState:
        """Return copies of everything that training changes; `updater` says whether the optimizer's are among them."""
        kept = self.updater if updater else None
        return NetworkState(read_parameters(self.module), read_buffers(self.module), kept, self.iteration)

    def load_state(self, state: NetworkState) -> None:
        """Take over parameters, buffers and iteration, and the updater where the state has one.

        Raises
        ------
        ConfigurationError
            When the state is that of another architecture.
        """
        write_parameters_(self.module, state.parameters)
        write_buffers_(self.module, state.buffers)
        self.iteration = state.iteration
        if state.updater is not None:
            self._keep_updater(state.updater)

    def replica(self, device: str | torch.device | None = None) -> Replica:
        """Return an independent working copy in this process, with a module and an optimizer of its own."""
        return Replica(self, device)

    def copy_module(self) -> nn.Module:
        """Return a module with the same values that shares nothing with this network's."""
        if self._factory is None:
            return copy.deepcopy(self.module)
        return rebuild(self._factory, read_values(self.module))

    def make_optimizer(self, parameters: list[nn.Parameter]) -> tuple[Optimizer, LRScheduler | None]:
        """Make optimizer and schedule over `parameters`.

        Raises
        ------
        ConfigurationError
            When there is no optimizer, or the factories do not return what they should.
        """
        if self.optimizer is None:
            raise ConfigurationError(
                "the network has no optimizer and cannot be fitted; give it one, "
                "such as optimizer=functools.partial(torch.optim.SGD, lr=0.1)"
            )
        by_name = getattr(self.optimizer, "by_name", False)
        given: list[Any] = list(zip(trainable(self.module), parameters, strict=True)) if by_name else parameters
        optimizer = checks.make_optimizer(self.optimizer, given)
        return optimizer, None if self.schedule is None else checks.make_schedule(self.schedule, optimizer)

    def predict(self, features: Any, mask: Any = None) -> Any:
        """Return the module's output for `features`, computed here on the CPU in evaluation mode.

        Parameters
        ----------
        features : array, shape (examples, ...), a sequence of arrays for several inputs, DataSet or MultiDataSet
        mask : array or sequence of arrays, optional

        Returns
        -------
        ndarray or tuple of ndarray
            A tuple for `ComputationGraph`. These are outputs; class numbers are ``output.argmax(1)``.
        """
        batch = normalized(self.normalizer, as_inputs(features, mask, self.several), self.dtype)
        inputs = to_tensors(batch, self.dtype, torch.device("cpu"))
        modes = {part: part.training for part in self.module.modules()}
        self.module.eval()
        try:
            with torch.no_grad():
                outputs = Forward(self.module, self.several)(inputs.features, inputs.features_masks)
        finally:
            for part, mode in modes.items():
                part.training = mode
        arrays = tuple(to_numpy(output) for output in reverted(self.normalizer, outputs))
        return arrays if self.several else arrays[0]

    def regularization(self) -> float:
        """Return the terms of `l1`, `l2` and `weight_decay` for the values as they are."""
        return Regularization(self.l1, self.l2, self.weight_decay).value(trainable(self.module))

    def summary(self) -> str:
        """Return a table of the parameters: name, shape, number of values, whether training changes it."""
        rows = [
            f"{name:<40} {tuple(p.shape)!s:<20} {p.numel():>12,} {'trainable' if p.requires_grad else 'frozen'}"
            for name, p in self.module.named_parameters()
        ]
        rows.append(f"{self.num_params():,} parameters, {self.num_params(True):,} of them trainable")
        theirs = self.num_params() if self.dl4j is None else sum(record.size for record in self.dl4j.records)
        if theirs != self.num_params():
            rows.append(f"DL4J counts {theirs:,} parameters, the statistics of batch normalisation among them")
        return "\n".join(rows)

    def save(self, path: str | PathLike[str], updater: bool = True) -> None:
        """Write the network's values to one safetensors file; see `strombus.networks.saving.save`."""
        from strombus.networks.saving import save

        save(self, path, updater)

    def load(self, path: str | PathLike[str], updater: bool = True) -> Self:
        """Take over the values in a file that `save` wrote, and return this network.

        Raises
        ------
        MissingDataError
            When there is no such file.
        DataError
            When it is corrupt, or its tensors are not those of this module; says which differ.
        """
        from strombus.networks.saving import load

        load(self, path, updater)
        return self

    @contextmanager
    def kept_for_a_fit(self) -> Iterator[None]:
        """Keep other fits away for a ``with`` block: each would overwrite what the other has trained.

        Raises
        ------
        ConfigurationError
            When one is under way.
        """
        mine = object()
        if vars(self).setdefault(_FIT, mine) is not mine:  # in one step, whatever other threads do
            raise ConfigurationError(
                "this network is in another fit now; give each fit a network of its own (copy.deepcopy makes one), or "
                "wait until that one has ended"
            )
        try:
            yield
        finally:
            del vars(self)[_FIT]

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop(_FIT, None)
        if self._factory is not None:
            state["module"] = read_values(self.module)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["_factory"] is not None:
            state = {**state, "module": rebuild(state["_factory"], state["module"])}
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.module).__name__}, {self.num_params():,} parameters)"


class MultiLayerNetwork(Network):
    """A network with one input and one output (DL4J: ``MultiLayerNetwork``); see `Network` for the parameters."""


class ComputationGraph(Network):
    """A network with several inputs and outputs (DL4J: ``ComputationGraph``).

    The module is called as ``module(*features)`` and returns a tensor or a tuple of tensors.

    Parameters
    ----------
    loss : callable or sequence of callable, optional
        One for each output, or one that serves every output; the figures are summed.
    loss_weights : sequence of float, optional
        What each output's loss is multiplied with.
    module, optimizer, **options
        See `Network`.
    """

    several = True

    def __init__(
        self,
        module: nn.Module | Callable[[], nn.Module],
        loss: LossFunction | Sequence[LossFunction] | None = None,
        optimizer: OptimizerFactory | None = None,
        *,
        loss_weights: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        self.loss_weights = checks.loss_weights(loss_weights)
        super().__init__(module, loss, optimizer, **options)

    def _make_objective(self, loss: Any) -> Objective | None:
        if loss is None:
            return None
        losses = list(loss) if isinstance(loss, list | tuple | nn.ModuleList) else [loss]
        if not losses:
            raise ConfigurationError("loss needs one callable for each output, got none")
        return Objective([Loss(function) for function in losses], self.loss_weights)
