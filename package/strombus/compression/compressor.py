"""One member's residual, thresholds and encoder: from a gradient to the bytes of an update, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny
from torch import Tensor, nn
from torch.optim import Optimizer

from strombus.compression import kernels
from strombus.compression.encoders import DenseEncoder, Encoder, ThresholdEncoder
from strombus.compression.residuals import ResidualClippingPostProcessor, ResidualPostProcessor
from strombus.compression.stepping import Selection, Span, Stepper
from strombus.compression.thresholds import AdaptiveThresholdAlgorithm, ThresholdAlgorithm, ThresholdState
from strombus.compression.wire import Parsed, pack_codes, pack_dense, unpack
from strombus.errors import ConfigurationError, NonFiniteError

__all__ = ["Compression", "Compressor", "CompressorState", "Update"]

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
        On the CPU, float32 or float64, contiguous views of `vector`, one after another.
    vector : Tensor, shape (n,)

    Raises
    ------
    ConfigurationError
        For parameters of another type or device.
    """

    def __init__(self, options: Compression, parameters: Sequence[nn.Parameter], vector: Tensor) -> None:
        _check(vector)
        self._options = options
        self._vector: Array = vector.detach().numpy()
        self.residual = torch.zeros_like(vector, requires_grad=False)
        self._residual: Array = self.residual.numpy()
        bits = self._residual.view(np.int32 if vector.dtype == torch.float32 else np.int64)
        starts = np.cumsum([0, *(parameter.numel() for parameter in parameters)])
        self._spans = [
            Span(parameter, int(start), self._vector, self.residual, bits)
            for parameter, start in zip(parameters, starts[:-1], strict=True)
        ]
        # Of the codes' own type: otherwise each search would copy all codes.
        self._starts = (2 * starts[:-1]).astype(np.uint32)
        self._codes = np.empty(len(vector), np.uint32)
        self._theirs = np.empty(len(vector), np.uint32)  # mapped as codes come, like the one before
        self._stepper = Stepper(self._spans, self._codes)
        self._own = Parsed(0, np.empty(0, self._vector.dtype))
        scopes = len(self._spans) if options.threshold_scope == "tensor" else 1
        self._state = CompressorState(self._residual, (ThresholdState(),) * scopes)

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
        if thresholds is not None:
            self._check_finite(count := self._stepper.step(optimizer, self._limits(thresholds)))
            return self._send(count, thresholds)
        never = self._limits([float(np.finfo(self._vector.dtype).max)])
        self._check_finite(self._stepper.step(optimizer, never))
        if isinstance(encoder, DenseEncoder):
            return self._send_dense(encoder)
        thresholds = self._estimates()
        return self._send(self._stepper.select(self._limits(thresholds)), thresholds)

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
        parsed = unpack(payload, len(self._vector), self._vector.dtype, len(self._spans), self._theirs)
        self._add(parsed, self._theirs, scale)

    def state(self) -> CompressorState:
        """Return a copy of everything that changes."""
        return replace(self._state, residual=self._residual.copy())

    def load(self, state: CompressorState) -> None:
        """Go on from `state`.

        Raises
        ------
        ConfigurationError
            When it is that of other parameters or of another threshold scope.
        """
        if state.residual.shape != self._residual.shape or len(state.thresholds) != len(self._state.thresholds):
            raise ConfigurationError(
                f"the compressor has {self._residual.size} elements and {len(self._state.thresholds)} thresholds, the "
                f"state {state.residual.size} and {len(state.thresholds)}"
            )
        self._residual[:] = state.residual
        self._state = replace(state, residual=self._residual)

    def statistics(self) -> dict[str, Any]:
        """Return figures of the residual as it is now (DL4J's encoding debug mode); one pass and a sort."""
        size = np.abs(self._residual)
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
        several = len(self._state.thresholds) > 1
        pieces = [span.residual for span in self._spans] if several else [self._residual]
        return [
            algorithm.bound(_quantile(piece, algorithm.share_to_estimate(state.steps)))
            for piece, state in zip(pieces, self._state.thresholds, strict=True)
        ]

    def _limits(self, thresholds: Sequence[float]) -> list[Selection]:
        dtype = self._vector.dtype
        range_ = np.finfo(dtype)
        for one in thresholds:
            if not range_.smallest_subnormal <= one <= range_.max:
                raise ConfigurationError(
                    f"the threshold {one:g} is outside the range of {dtype}: bound it with the threshold algorithm's "
                    "minimum_threshold and maximum_threshold"
                )
        limits = [kernels.limits_of(one, dtype) for one in thresholds]
        return limits * len(self._spans) if len(limits) == 1 else limits

    # -- sending

    def _send(self, count: int, thresholds: Sequence[float]) -> Update:
        quanta = np.array(thresholds, self._vector.dtype)
        payload = pack_codes(self._codes, count, len(self._vector), quanta)
        self._own = Parsed(count, quanta)
        clipped, states = 0.0, []
        for piece, first, stop, tau, state in self._scopes(quanta, count):
            share = (stop - first) / max(1, len(piece))
            states.append(ThresholdState(float(tau), share, state.steps + 1))
            clipped += self._options.residual_post_processor.process_(piece, float(tau), self._state.iteration)
        self._advance(tuple(states), clipped)
        return Update(payload, count, float(quanta.mean()), clipped)

    def _scopes(self, quanta: Array, count: int) -> list[tuple[Array, int, int, Any, ThresholdState]]:
        """Return for each threshold its stretch of the residual, its codes' range, and its state."""
        states = self._state.thresholds
        if len(states) == 1:
            return [(self._residual, 0, count, quanta[0], states[0])]
        found = []
        edges = self._edges(self._codes, count)
        for span, tau, state, first, stop in zip(self._spans, quanta, states, edges, edges[1:], strict=False):
            found.append((span.residual, int(first), int(stop), tau, state))
        return found

    def _edges(self, codes: Array, count: int) -> Array:
        """Return where each tensor's codes start, and where the last one's stop."""
        return np.append(np.searchsorted(codes[:count], self._starts), count)

    def _send_dense(self, encoder: DenseEncoder) -> Update:
        values = self._residual.astype(encoder.dtype or self._vector.dtype)
        self._check_finite(0 if np.isfinite(values).all() else -1)
        self._residual -= values
        self._own = Parsed(0, np.empty(0, self._vector.dtype), values)
        self._advance(self._state.thresholds, 0.0)
        return Update(pack_dense(values), int(np.count_nonzero(values)), 0.0, dense=True)

    def _nothing(self) -> Update:
        quanta = np.ones(1, self._vector.dtype)
        self._own = Parsed(0, quanta)
        return Update(pack_codes(self._codes, 0, len(self._vector), quanta), 0, 0.0)

    def _advance(self, thresholds: tuple[ThresholdState, ...], clipped: float) -> None:
        state = self._state
        self._state = replace(
            state, thresholds=thresholds, iteration=state.iteration + 1, clipped=state.clipped + clipped
        )

    def _add(self, parsed: Parsed, codes: Array, scale: float) -> None:
        if parsed.values is not None:
            self._vector += parsed.values.astype(self._vector.dtype) * self._vector.dtype.type(scale)
            return
        quanta = (parsed.thresholds * scale).astype(self._vector.dtype)
        if len(quanta) == 1:
            kernels.add_codes(codes, parsed.count, quanta[0], self._vector, 0)
            return
        edges = self._edges(codes, parsed.count)
        for first, stop, quantum in zip(edges, edges[1:], quanta, strict=False):
            kernels.add_codes(codes[first:stop], int(stop - first), quantum, self._vector, 0)

    def _gradients_are_finite(self) -> bool:
        gradients = (span.parameter.grad for span in self._spans)
        return all(bool(torch.isfinite(one).all()) for one in gradients if one is not None)

    def _check_finite(self, count: int) -> None:
        if count < 0:
            raise NonFiniteError(
                f"an update became infinite or NaN in step {self._state.iteration}: lower the learning rate, clip "
                'gradients, or leave such updates out with on_nonfinite="skip"'
            )


def _check(vector: Tensor) -> None:
    if vector.dtype not in (torch.float32, torch.float64):
        raise ConfigurationError(f"shared training takes float32 or float64 parameters, got {vector.dtype}")
    if len(vector) > _MOST:
        raise ConfigurationError(f"shared training takes at most {_MOST} parameters, got {len(vector)}")
    if vector.device.type != "cpu":
        raise ConfigurationError(f"shared training works on the CPU, got parameters on {vector.device}")


def _quantile(residual: Array, share: float) -> float:
    """Return the threshold that about `share` of the elements reach; of those that are not zero, if few are."""
    sample = np.abs(residual[:: max(1, len(residual) // _SAMPLE)])
    if not sample.any():
        sample = np.abs(residual)
    found = float(np.quantile(sample, 1 - share)) if len(sample) else 0.0
    if found:
        return found
    rest = sample[sample > 0]
    return float(np.median(rest)) if len(rest) else 1.0
