"""Losses as torch computes them, with what averaging needs besides: a count, masks, a figure for each example."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strombus.errors import ConfigurationError, DataError
from strombus.networks.tensors import describe

__all__ = ["Loss"]

_CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)
_CLASS_FUNCTIONS = (F.cross_entropy, F.nll_loss)
_SAME_SHAPE_LOSSES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss)
_SAME_SHAPE_FUNCTIONS = (
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
)
_NUMBER_LOSSES = (nn.KLDivLoss, nn.PoissonNLLLoss, nn.SoftMarginLoss, nn.MultiLabelSoftMarginLoss)
_NUMBER_FUNCTIONS = (F.kl_div, F.poisson_nll_loss, F.soft_margin_loss, F.multilabel_soft_margin_loss)
_SIGMOID_LOSSES = (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss)
_SIGMOID_FUNCTIONS = (F.binary_cross_entropy_with_logits, F.multilabel_soft_margin_loss)
_YES_OR_NO_LOSSES = (nn.BCELoss, *_SIGMOID_LOSSES)
_YES_OR_NO_FUNCTIONS = (F.binary_cross_entropy, *_SIGMOID_FUNCTIONS)


class Loss:
    """One output's loss.

    Parameters
    ----------
    function : callable
        ``function(output, labels)``: an ``nn`` loss, a function of ``torch.nn.functional`` (or a
        ``functools.partial`` of one), or a function of one's own. It returns a scalar mean, or one figure
        or more for each example. For masks it also needs a per-term form: a `reduction` that can be
        ``"none"``, or returning the terms. Without one, masks of one entry for each example still work,
        by calling the function for one row after another.

        A loss with a method ``per_example(output, labels, mask)`` that returns a figure for each example does its
        own masking, and the mean is over the examples, as in DL4J. It may also have ``takes(output, labels, mask)``
        and an attribute `judges`, see below.

    Raises
    ------
    ConfigurationError
        For a loss that sums, has parameters of its own, or is a class rather than an object.

    Notes
    -----
    Without a mask, `mean` is exactly ``function(output, labels)``. With one it is the sum of mask times
    term over the sum of the mask, whose entries may be any weights of at least 0. The count says what the mean is
    over, so that the count-weighted mean of several batches' means is the mean over all their terms: rows; with a mask
    the sum of its entries; for cross entropy and NLL over class numbers what torch divides by (class weights,
    `ignore_index`), times the mask.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function
        self.name = _name(function)
        options = _options(function)
        _check(function, self.name, options)
        self._figures: Callable[..., Any] | None = getattr(function, "per_example", None)
        self.classes = _is(function, _CLASS_LOSSES, _CLASS_FUNCTIONS)
        self._same_shape = _is(function, _SAME_SHAPE_LOSSES, _SAME_SHAPE_FUNCTIONS)
        self._numbers = self._same_shape or _is(function, _NUMBER_LOSSES, _NUMBER_FUNCTIONS)
        self._row_sums = options.get("reduction") == "batchmean"
        self._class_weight: Tensor | None = options.get("weight") if self.classes else None
        ignored = options.get("ignore_index")
        self._ignored = -100 if ignored is None else int(ignored)
        self._term_function = _term_function(function)

    @property
    def ignored(self) -> int | None:
        """The class number that does not count, None for a loss that is not over class numbers."""
        return self._ignored if self.classes else None

    @property
    def judges(self) -> Literal["classes", "yes or no", "values"] | None:
        """What the labels are: classes, a yes or no for each output, values; None where the loss does not say."""
        if self._figures is not None:
            judges: Literal["classes", "yes or no", "values"] | None = getattr(self.function, "judges", None)
            return judges
        if self.classes:
            return "classes"
        if _is(self.function, _YES_OR_NO_LOSSES, _YES_OR_NO_FUNCTIONS):
            return "yes or no"
        return "values" if self._same_shape or _is(self.function, (nn.PoissonNLLLoss,), (F.poisson_nll_loss,)) else None

    def to(self, device: torch.device) -> Loss:
        """Return a loss of its own whose tensors are on `device`."""
        function = self.function
        return Loss(copy.deepcopy(function).to(device) if isinstance(function, nn.Module) else function)

    def probabilities(self, output: Tensor) -> Tensor:
        """Return an output that the loss takes as logits, or as logarithms, as probabilities in float64.

        Any other output comes back as it is: a loss of one's own does not say what it takes.
        """
        if _is(self.function, (nn.CrossEntropyLoss,), (F.cross_entropy,)):
            return output.double().softmax(dim=1 if output.ndim > 1 else 0)
        if _is(self.function, (nn.NLLLoss,), (F.nll_loss,)):
            return output.double().exp()
        return output.double().sigmoid() if _is(self.function, _SIGMOID_LOSSES, _SIGMOID_FUNCTIONS) else output

    def mean(self, output: Tensor, labels: Tensor, mask: Tensor | None = None) -> tuple[Tensor, float]:
        """Return the mean over the unmasked terms as a scalar that can be differentiated, and its count.

        A batch without a single term has mean 0 and count 0.

        Raises
        ------
        DataError
            When labels or mask do not fit the output; names their shapes and types.
        """
        labels = self._fitted(output, labels)
        if self._figures is not None:
            return self._own(output, labels, mask).mean(), float(len(output))
        if mask is not None:
            return self._masked_mean(output, labels, mask)
        count = float(len(labels))
        if self.classes and not labels.is_floating_point():
            count = float(self._divisors(labels).sum())
            if count == 0:
                return self.terms(output, labels).sum() * 0, 0.0
        value = self._call(self.function, output, labels)
        return (value.mean() if value.ndim else value), count

    def per_example(self, output: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one figure for each example: the mean of its unmasked terms, 0 where it has none.

        Class weights multiply the terms, as they do in torch with ``reduction="none"``; with
        ``reduction="batchmean"`` it is the sum of the terms. DL4J sums over time steps instead.
        """
        labels = self._fitted(output, labels)
        if self._figures is not None:
            return self._own(output, labels, mask)
        terms = self.terms(output, labels)
        weights = torch.ones_like(terms) if mask is None else self._weights(mask, terms).expand_as(terms)
        if self.classes and not labels.is_floating_point():
            weights = weights * (labels != self._ignored)
        sums = _weighted(terms, weights).reshape(len(terms), -1).sum(1)
        if self._row_sums:
            return sums
        counts = weights.reshape(len(terms), -1).sum(1)
        return torch.where(counts > 0, sums / counts.clamp_min(torch.finfo(sums.dtype).tiny), 0)

    def terms(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the loss before its mean: shape (examples, ...); (examples,) where only a scalar form exists."""
        labels = self._fitted(output, labels)
        if self._term_function is not None:
            terms = self._call(self._term_function, output, labels)
            if terms.ndim and len(terms) == len(output):
                return terms
        rows = [self._call(self.function, output[i : i + 1], labels[i : i + 1]).mean() for i in range(len(output))]
        return torch.stack(rows)

    def takes(self, output: Tensor, labels: Tensor, mask: Tensor) -> bool:
        """Say whether `mask` has an entry for each step of the terms, and so can stand in for a labels mask."""
        if self._figures is not None:
            return bool(getattr(self.function, "takes", lambda *_: False)(output, labels, mask))
        if self.classes and not labels.is_floating_point():
            shape = labels.shape
        elif self._same_shape:
            shape = output.shape
        elif self._term_function is None:
            return False
        else:
            with torch.no_grad():
                shape = self._call(self._term_function, output, self._fitted(output, labels)).shape
        return mask.ndim >= 2 and mask.shape == shape[: mask.ndim]

    def _fitted(self, output: Tensor, labels: Tensor) -> Tensor:
        """Cast labels that are numbers, and class numbers kept as floats; refuse shapes that torch would broadcast."""
        if len(labels) != len(output):
            raise self._misfit(output, labels, "they need the same number of examples")
        if not labels.is_floating_point() and (self._numbers or (self.classes and labels.shape == output.shape)):
            labels = labels.to(output.dtype)
        if self._same_shape and labels.shape != output.shape:
            raise self._misfit(output, labels, "it needs equal shapes")
        if self.classes and labels.is_floating_point() and labels.ndim < output.ndim:  # as Spark ML keeps them
            if not torch.equal(labels, labels.floor()):
                raise self._misfit(output, labels, "class numbers must be whole numbers")
            labels = labels.long()
        return labels

    def _own(self, output: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
        """Return what the loss itself says of each example."""
        assert self._figures is not None
        figures = self._call(functools.partial(self._figures, mask=mask), output, labels)
        if figures.shape != (len(output),):
            raise ConfigurationError(
                f"per_example of the loss {self.name} must return one figure for each of {len(output)} examples, "
                f"got shape {tuple(figures.shape)}"
            )
        return figures

    def _call(self, function: Callable[..., Any], output: Tensor, labels: Tensor) -> Tensor:
        try:
            value = function(output, labels)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise self._misfit(output, labels, str(error)) from error
        if not isinstance(value, Tensor):
            raise ConfigurationError(f"the loss {self.name} must return a tensor, got {type(value).__name__}")
        return value

    def _misfit(self, output: Tensor, labels: Tensor, why: str) -> DataError:
        return DataError(
            f"the loss {self.name} cannot compare output {describe(output)} with labels {describe(labels)}: {why}"
        )

    def _divisors(self, labels: Tensor) -> Tensor:
        """Return what each class number counts in torch's own mean: its class weight, 0 where it is ignored."""
        kept = labels != self._ignored
        if self._class_weight is None:
            return kept
        safe = torch.where(kept, labels, 0)
        if safe.numel() and not 0 <= int(safe.min()) <= int(safe.max()) < len(self._class_weight):
            raise DataError(f"class numbers must lie in 0..{len(self._class_weight) - 1}, got {int(labels.max())}")
        return torch.where(kept, self._class_weight.to(labels.device)[safe], 0)

    def _masked_mean(self, output: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, float]:
        terms = self.terms(output, labels)
        weights = self._weights(mask, terms)
        total = _weighted(terms, weights).sum()
        if self.classes and not labels.is_floating_point():
            count = divisor = float((self._divisors(labels) * weights).sum())
        elif self._row_sums:
            count = divisor = float(weights.reshape(len(weights), -1).amax(1).sum())
        else:
            count = float(weights.sum())
            divisor = count * (terms.numel() / max(1, weights.numel()))
        return (total / divisor, count) if count else (total * 0, 0.0)

    def _weights(self, mask: Tensor, terms: Tensor) -> Tensor:
        """Give the mask the terms' number of dimensions, so that it broadcasts over those it does not have.

        Its axes are matched with the leading axes of the terms, (examples, time) with (examples, time, ...);
        failing that with the first and the trailing ones, (examples, time) with (examples, ..., time).
        """
        if (mask < 0).any():
            raise DataError(
                f"a labels mask, or weights, must not be negative for the loss {self.name}: the least entry is "
                f"{float(mask.min()):g}"
            )
        while mask.ndim > 1 and mask.shape[-1] == 1 and mask.shape != terms.shape[: mask.ndim]:
            mask = mask.squeeze(-1)  # of shape (examples, 1), a weight of the whole example
        missing = (1,) * (terms.ndim - mask.ndim)
        if mask.shape == terms.shape[: mask.ndim]:
            return mask.reshape(*mask.shape, *missing)
        if missing and mask.shape == terms.shape[:1] + terms.shape[terms.ndim - mask.ndim + 1 :]:
            return mask.reshape(mask.shape[0], *missing, *mask.shape[1:])
        if mask.ndim == terms.ndim and all(m in (1, t) for m, t in zip(mask.shape, terms.shape, strict=True)):
            return mask
        raise DataError(
            f"a labels mask of shape {tuple(mask.shape)} does not fit the terms of the loss {self.name}, "
            f"{tuple(terms.shape)}; give it an entry for each example, each time step or each term"
            + ("; a loss of your own must return its terms for this" if terms.ndim == 1 < mask.ndim else "")
        )


def _weighted(terms: Tensor, weights: Tensor) -> Tensor:
    """Multiply, but let no NaN of a masked term through."""
    return torch.where(weights != 0, terms, 0) * weights


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name(function: Any) -> str:
    inner = _unwrapped(function)
    if isinstance(getattr(inner, "name", None), str):
        return str(inner.name)
    return str(getattr(inner, "__name__", type(inner).__name__))


def _is(function: Any, classes: tuple[type, ...], functions: tuple[Any, ...]) -> bool:
    inner = _unwrapped(function)
    return isinstance(inner, classes) or any(inner is known for known in functions)


def _options(function: Any) -> Mapping[str, Any]:
    """Return `reduction`, `weight` and `ignore_index` as set on the object or in the partial."""
    if isinstance(function, functools.partial):
        return {**_options(function.func), **function.keywords}
    return {name: getattr(function, name, None) for name in ("reduction", "weight", "ignore_index")}


def _check(function: Any, name: str, options: Mapping[str, Any]) -> None:
    if isinstance(function, type):
        raise ConfigurationError(f"loss must be an object, got the class {name}; write {name}()")
    if not callable(function):
        raise ConfigurationError(f"loss must be callable as loss(output, labels), got {function!r}")
    if options.get("reduction") == "sum":
        raise ConfigurationError(
            f"the loss {name} sums over the minibatch, so that its gradient grows with the number of rows and "
            "cannot be averaged over workers; use reduction='mean' and scale the learning rate"
        )
    if isinstance(function, nn.Module) and any(p.requires_grad for p in function.parameters()):
        raise ConfigurationError(f"the loss {name} has parameters to train; make it a part of the module instead")


def _term_function(function: Any) -> Callable[..., Any] | None:
    """Return the form of the loss that does not reduce, if there is a sign of one."""
    inner = _unwrapped(function)
    if isinstance(function, nn.Module):
        if not hasattr(function, "reduction"):
            return function
        unreduced = copy.deepcopy(function)
        setattr(unreduced, "reduction", "none")  # noqa: B010 - nn.Module types its attributes as tensors
        return unreduced
    try:
        takes_reduction = "reduction" in inspect.signature(inner).parameters
    except (TypeError, ValueError):
        takes_reduction = False
    return functools.partial(function, reduction="none") if takes_reduction else function
