"""One member's residual, thresholds and encoder: from a gradient to the bytes of an update, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from strombus.compression.dl4j_words import take_words_
from strombus.compression.encoders import DenseEncoder, Dl4jEncoder, Encoder, ThresholdEncoder
from strombus.compression.kernels import SLACK
from strombus.compression.residuals import ResidualClippingPostProcessor, ResidualPostProcessor
from strombus.compression.stepping import Stepper
from strombus.compression.thresholds import AdaptiveThresholdAlgorithm, ThresholdAlgorithm, ThresholdState
from strombus.compression.torch_ops import TorchStepper
from strombus.compression.wire import Parsed, pack_codes, pack_dense, pack_words, unpack
from strombus.errors import ConfigurationError, NonFiniteError

__all__ = ["Compression", "Compressor", "CompressorState", "Update", "check_compressible"]

Array = NDArray[Any]

_MOST = 2**31 - 1
"""Elements that a code of 32 bits can tell apart, beside its sign."""
_SAMPLE = 1 << 16
"""Elements that a quantile of the residual is estimated from."""


class Compression(BaseModel):
    """How updates are compressed.

    Parameters
    ----------
    threshold_algorithm : ThresholdAlgorithm
    residual_post_processor : ResidualPostProcessor
    encoder : Encoder
    threshold_scope : {"model", "tensor"}
        One threshold for the model, or one for each parameter tensor.
    on_nonfinite : {"raise", "skip"}
        Whether an update with NaN or infinite values raises, or is left out and counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold_algorithm: SerializeAsAny[ThresholdAlgorithm] = Field(default_factory=AdaptiveThresholdAlgorithm)
    residual_post_processor: SerializeAsAny[ResidualPostProcessor] = Field(
        default_factory=ResidualClippingPostProcessor
    )
    encoder: SerializeAsAny[Encoder] = Field(default_factory=ThresholdEncoder)
    threshold_scope: Literal["model", "tensor"] = "model"
    on_nonfinite: Literal["raise", "skip"] = "raise"

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if isinstance(self.encoder, Dl4jEncoder) and self.threshold_scope != "model":
            raise ValueError('DL4J\'s messages hold one threshold: use threshold_scope="model", or another encoder')
        return self


@dataclass(frozen=True)
class CompressorState:
    """Everything of a compressor that changes.

    Parameters
    ----------
    residual : ndarray, shape (n,)
    thresholds : tuple of ThresholdState
        One, or one for each parameter tensor.
    iteration : int
        Steps so far.
    skipped : int
        Steps that were left out.
    clipped : float
        Sum of the absolute values that the post-processor has removed.
    """

    residual: Array
    thresholds: tuple[ThresholdState, ...]
    iteration: int = 0
    skipped: int = 0
    clipped: float = 0.0


@dataclass(frozen=True, slots=True)
class Update:
    """What a step came to.

    Parameters
    ----------
    payload : bytearray
        What the peers get.
    count : int
        Elements that are not zero.
    threshold : float
        The step's; the mean of several; 0 for a dense update.
    clipped : float
        Sum of the absolute values that the post-processor removed from the residual after this step.
    dense : bool
        Whether all elements are sent as they are.
    """

    payload: bytearray
    count: int
    threshold: float
    clipped: float = 0.0
    dense: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the payload."""
        return len(self.payload)


class Compressor:
    """Takes an optimizer's steps into a residual and sends what has grown large enough (Strom 2015).

    Parameters
    ----------
    options : Compression
    parameters : sequence of Parameter
        float32 or float64, contiguous views of `vector`, one after another. On the CPU compiled passes do the work,
        on another device torch operations.
    vector : Tensor, shape (n,)

    Raises
    ------
    ConfigurationError
        For parameters of another type.
    """

    def __init__(self, options: Compression, parameters: Sequence[nn.Parameter], vector: Tensor) -> None:
        check_compressible(vector)
        self._options = options
        self.residual = torch.zeros_like(vector, requires_grad=False)
        self._dtype: np.dtype[Any] = np.dtype(str(vector.dtype).removeprefix("torch."))
        self._parameters = list(parameters)
        starts = np.cumsum([0, *(parameter.numel() for parameter in parameters)])
        self._pieces = [self.residual[start:stop] for start, stop in pairwise(starts.tolist())]
        # Of the codes' own type: otherwise each search would copy all codes.
        self._starts = (2 * starts[:-1]).astype(np.uint32)
        self._codes = np.empty(len(vector) + SLACK, np.uint32)
        self._theirs = np.empty(len(vector), np.uint32)  # mapped as codes come, like the one before
        make = Stepper if vector.device.type == "cpu" else TorchStepper
        self._stepper: Stepper | TorchStepper = make(parameters, vector.detach(), self.residual, self._codes)
        self._own = Parsed(0, np.empty(0, self._dtype))
        scopes = len(self._pieces) if options.threshold_scope == "tensor" else 1
        sizes = [len(piece) for piece in (self._pieces if scopes > 1 else [self.residual])]
        states = tuple(ThresholdState(elements=size) for size in sizes)
        self._state = CompressorState(np.empty(0, self._dtype), states)

    def step_(self, optimizer: Optimizer) -> Update:
        """Take the optimizer's step into the residual and return what is sent; the parameters stay as they are.

        Gradients lie on the parameters; the optimizer's own state is as after ``optimizer.step()``.

        Raises
        ------
        NonFiniteError
            When the residual became infinite or NaN, unless such updates are skipped.
        """
        if self._options.on_nonfinite == "skip" and not self._gradients_are_finite():
            self._state = replace(self._state, skipped=self._state.skipped + 1)
            return self._nothing()
        encoder = self._options.encoder
        thresholds = None if isinstance(encoder, DenseEncoder) else self._next_thresholds()
        if isinstance(encoder, ThresholdEncoder) and thresholds is not None:
            self._check_finite(count := self._stepper.step(optimizer, self._checked(thresholds)))
            return self._send(count, thresholds)
        never = [float(np.finfo(self._dtype).max)]
        self._check_finite(self._stepper.step(optimizer, never))
        if isinstance(encoder, DenseEncoder):
            return self._send_dense(encoder)
        thresholds = self._checked(thresholds or self._estimates())
        if isinstance(encoder, Dl4jEncoder):
            return self._send_words(thresholds[0])
        return self._send(self._stepper.select(thresholds), thresholds)

    def apply_own_(self, scale: float) -> None:
        """Add the last step's update, times `scale`, to the parameters."""
        self._add(self._own, self._codes, scale)

    def apply_(self, payload: bytes | bytearray | memoryview, scale: float) -> None:
        """Add a peer's update, times `scale`, to the parameters.

        Raises
        ------
        WireError
            When the payload is damaged; nothing has changed then.
        """
        parsed = unpack(payload, len(self.residual), self._dtype, len(self._pieces), self._theirs)
        self._add(parsed, self._theirs, scale)

    def state(self) -> CompressorState:
        """Return a copy of everything that changes."""
        return replace(self._state, residual=self.residual.cpu().numpy().copy())

    def load(self, state: CompressorState) -> None:
        """Go on from `state`.

        Raises
        ------
        ConfigurationError
            When it is that of other parameters or of another threshold scope.
        """
        if len(state.residual) != len(self.residual) or len(state.thresholds) != len(self._state.thresholds):
            raise ConfigurationError(
                f"the compressor has {len(self.residual)} elements and {len(self._state.thresholds)} thresholds, the "
                f"state {state.residual.size} and {len(state.thresholds)}"
            )
        self.residual.copy_(torch.from_numpy(np.array(state.residual)))
        self._state = replace(state, residual=state.residual[:0])

    @property
    def skipped(self) -> int:
        """Steps that were left out so far."""
        return self._state.skipped

    def statistics(self) -> dict[str, Any]:
        """Return figures of the residual as it is now (DL4J's encoding debug mode); one pass and a sort."""
        size = self.residual.abs().cpu().numpy()
        marks = (50, 95, 99, 99.9, 99.99)
        tau = [state.threshold for state in self._state.thresholds if state.threshold is not None]
        threshold = float(np.mean(tau)) if tau else float("nan")
        figures = dict(zip(map(str, marks), map(float, np.percentile(size, marks)), strict=True))
        return {
            "elements": size.size,
            "threshold": threshold,
            "count": self._own.count,
            "share": self._own.count / max(1, size.size),
            "mean": float(size.mean()),
            "largest": float(size.max(initial=0)),
            "percentiles": figures,
            "percentiles_in_thresholds": {name: value / threshold for name, value in figures.items()},
            "clipped": self._state.clipped,
            "skipped": self._state.skipped,
        }

    # -- thresholds

    def _next_thresholds(self) -> list[float] | None:
        """Return the step's thresholds; None when they are to be estimated from the residual."""
        found = [self._options.threshold_algorithm.next(state) for state in self._state.thresholds]
        return None if any(one is None for one in found) else [float(one) for one in found if one is not None]

    def _estimates(self) -> list[float]:
        algorithm = self._options.threshold_algorithm
        pieces = self._pieces if len(self._state.thresholds) > 1 else [self.residual]
        return [
            algorithm.bound(_quantile(piece, algorithm.share_to_estimate(state)))
            for piece, state in zip(pieces, self._state.thresholds, strict=True)
        ]

    def _checked(self, thresholds: list[float]) -> list[float]:
        known = np.finfo(self._dtype if not isinstance(self._options.encoder, Dl4jEncoder) else np.float32)
        for one in thresholds:
            if not float(known.smallest_subnormal) <= one <= float(known.max):
                raise ConfigurationError(
                    f"the threshold {one:g} is outside the range of {known.dtype}: bound it with the threshold "
                    "algorithm's minimum_threshold and maximum_threshold"
                )
        return thresholds

    # -- sending

    def _send(self, count: int, thresholds: Sequence[float]) -> Update:
        quanta = np.array(thresholds, self._dtype)
        payload = pack_codes(self._codes, count, len(self.residual), quanta)
        self._own = Parsed(count, quanta)
        if len(quanta) == 1:
            clipped = self._settle([self.residual], [count], quanta)
        else:
            clipped = self._settle(self._pieces, np.diff(self._edges(self._codes, count)), quanta)
        return Update(payload, count, float(quanta.mean()), clipped)

    def _send_words(self, threshold: float) -> Update:
        """Send DL4J's message; the residual is the same memory on the CPU, and copied from another device."""
        host = self.residual.cpu().numpy()
        words, sent = take_words_(host, threshold)
        self.residual.copy_(torch.from_numpy(host))
        count = int(np.count_nonzero(sent))
        self._own = Parsed(0, np.empty(0, self._dtype), sent)
        clipped = self._settle([self.residual], [count], np.array([threshold], np.float32))
        return Update(pack_words(words, len(host), self._dtype), count, float(np.float32(threshold)), clipped)

    def _settle(self, pieces: Sequence[Tensor], counts: Sequence[int] | Array, quanta: Array) -> float:
        """Post-process the residual and note what each threshold let through; return what was clipped."""
        clipped, states, process_ = 0.0, [], self._options.residual_post_processor.process_
        for piece, count, tau, state in zip(pieces, counts, quanta, self._state.thresholds, strict=True):
            share = int(count) / max(1, len(piece))
            states.append(replace(state, threshold=float(tau), share=share, steps=state.steps + 1))
            clipped += process_(self._stepper.own_form(piece), float(tau), self._state.iteration)
        self._advance(tuple(states), clipped)
        return clipped

    def _edges(self, codes: Array, count: int) -> Array:
        """Return where each tensor's codes start, and where the last one's stop."""
        return np.append(np.searchsorted(codes[:count], self._starts), count)

    def _send_dense(self, encoder: DenseEncoder) -> Update:
        values = self.residual.to(getattr(torch, encoder.dtype or str(self._dtype)), copy=True)
        self._check_finite(0 if bool(torch.isfinite(values).all()) else -1)
        self.residual -= values
        sent = values.cpu().numpy()
        self._own = Parsed(0, np.empty(0, self._dtype), sent)
        self._advance(self._state.thresholds, 0.0)
        return Update(pack_dense(sent), int(np.count_nonzero(sent)), 0.0, dense=True)

    def _nothing(self) -> Update:
        quanta = np.ones(1, self._dtype)
        self._own = Parsed(0, quanta)
        return Update(pack_codes(self._codes, 0, len(self.residual), quanta), 0, 0.0)

    def _advance(self, thresholds: tuple[ThresholdState, ...], clipped: float) -> None:
        state = self._state
        self._state = replace(
            state, thresholds=thresholds, iteration=state.iteration + 1, clipped=state.clipped + clipped
        )

    def _add(self, parsed: Parsed, codes: Array, scale: float) -> None:
        if parsed.values is not None:
            self._stepper.add_values(parsed.values, scale)
            return
        quanta = (parsed.thresholds * scale).astype(self._dtype)
        edges = [0, parsed.count] if len(quanta) == 1 else self._edges(codes, parsed.count)
        for first, stop, quantum in zip(edges, edges[1:], quanta, strict=False):
            self._stepper.add_codes(codes[first:stop], quantum)

    def _gradients_are_finite(self) -> bool:
        gradients = (parameter.grad for parameter in self._parameters)
        return all(bool(torch.isfinite(one).all()) for one in gradients if one is not None)

    def _check_finite(self, count: int) -> None:
        if count < 0:
            raise NonFiniteError(
                f"an update became infinite or NaN in step {self._state.iteration}: lower the learning rate, clip "
                'gradients, or leave such updates out with on_nonfinite="skip"'
            )


def check_compressible(vector: Tensor) -> None:
    """Raise ConfigurationError for parameters of a type or number that a `Compressor` does not take."""
    if vector.dtype not in (torch.float32, torch.float64):
        raise ConfigurationError(
            f"shared training takes float32 or float64 parameters, got {vector.dtype}; for mixed precision keep them "
            "float32 and give the network autocast=torch.bfloat16"
        )
    if len(vector) > _MOST:
        raise ConfigurationError(f"shared training takes at most {_MOST} parameters, got {len(vector)}")


def _quantile(residual: Tensor, share: float) -> float:
    """Return the threshold that about `share` of the elements reach; of those that are not zero, if few are."""
    sample = residual[:: _prime(len(residual) // _SAMPLE)].abs().cpu().numpy()
    if not sample.any():
        sample = residual.abs().cpu().numpy()
    found = float(np.quantile(sample, 1 - share)) if len(sample) else 0.0
    if found:
        return found
    rest = sample[sample > 0]
    return float(np.median(rest)) if len(rest) else 1.0


def _prime(number: int) -> int:
    """Return the first prime from `number` on, or 1: every so many elements are of no row's or image's one column."""
    while number > 1 and any(number % divisor == 0 for divisor in range(2, math.isqrt(number) + 1)):
        number += 1
    return max(1, number)
