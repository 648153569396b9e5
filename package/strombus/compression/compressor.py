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

from strombus.compression.encoders import Encoded, Encoder, ThresholdEncoder
from strombus.compression.intake import Intake, Store
from strombus.compression.kernels import SLACK
from strombus.compression.residuals import ResidualClippingPostProcessor, ResidualPostProcessor
from strombus.compression.stepping import Stepper
from strombus.compression.thresholds import AdaptiveThresholdAlgorithm, ThresholdAlgorithm, ThresholdState
from strombus.compression.torch_ops import TorchStepper
from strombus.compression.wire import Parsed, pack_codes, unpack
from strombus.errors import ConfigurationError

__all__ = ["Compression", "Compressor", "CompressorState", "Update", "check_compressible"]

Array = NDArray[Any]

_MOST = 2**31 - 1
"""Elements that a code of 32 bits can tell apart, beside its sign."""


class Compression(BaseModel):
    """How updates are compressed.

    Parameters
    ----------
    threshold_algorithm : ThresholdAlgorithm
    residual_post_processor : ResidualPostProcessor
    encoder : Encoder
    threshold_scope : {"model", "tensor"}
        One threshold for the model, or one for each parameter tensor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold_algorithm: SerializeAsAny[ThresholdAlgorithm] = Field(default_factory=AdaptiveThresholdAlgorithm)
    residual_post_processor: SerializeAsAny[ResidualPostProcessor] = Field(
        default_factory=ResidualClippingPostProcessor
    )
    encoder: SerializeAsAny[Encoder] = Field(default_factory=ThresholdEncoder)
    threshold_scope: Literal["model", "tensor"] = "model"

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if self.encoder.one_threshold and self.threshold_scope != "model":
            raise ValueError(
                f'messages of the encoder {self.encoder.name!r} hold one threshold: use threshold_scope="model", or '
                "another encoder"
            )
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
        self._spans = list(pairwise(starts.tolist()))
        # Of the codes' own type: otherwise each search would copy all codes.
        self._starts = (2 * starts[:-1]).astype(np.uint32)
        self._codes = np.empty(len(vector) + SLACK, np.uint32)
        self._theirs = np.empty(len(vector), np.uint32)  # mapped as codes come, like the one before
        make = Stepper if vector.device.type == "cpu" else TorchStepper
        self._stepper: Stepper | TorchStepper = make(parameters, vector.detach(), self.residual, self._codes)
        by_tensor = options.threshold_scope == "tensor" and len(self._spans) > 1
        pieces = [self.residual[start:stop] for start, stop in self._spans] if by_tensor else [self.residual]
        quantum_type = np.dtype(options.encoder.quantum_type or self._dtype)
        self._store = Store(
            self._stepper, self.residual, pieces, self._codes, options.threshold_algorithm, quantum_type
        )
        self._own = Parsed(0, np.empty(0, self._dtype))
        states = tuple(ThresholdState(elements=len(piece)) for piece in pieces)
        self._state = CompressorState(np.empty(0, self._dtype), states)

    def step_(self, optimizer: Optimizer) -> Update:
        """Take the optimizer's step into the residual and return what is sent; the parameters stay as they are.

        Gradients lie on the parameters; the optimizer's own state is as after ``optimizer.step()``.

        Raises
        ------
        NonFiniteError
            When the residual became infinite or NaN; it is of no use any more.
        """
        intake = Intake(self._store, optimizer, self._state.thresholds, self._state.iteration)
        return self._note(self._options.encoder.encode_(intake), intake.used)

    def skip_(self) -> Update:
        """Count a step that is left out, and return that nothing is sent."""
        self._state = replace(self._state, skipped=self._state.skipped + 1)
        quanta = np.ones(1, self._dtype)
        self._own = Parsed(0, quanta)
        return Update(pack_codes(self._codes, 0, len(self.residual), quanta), 0, 0.0)

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
        read = self._options.encoder.read
        parsed = unpack(payload, len(self.residual), self._dtype, len(self._parameters), self._theirs, read)
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

    # -- sending

    def _note(self, encoded: Encoded, thresholds: list[float] | None) -> Update:
        """Post-process the residual and note what each threshold let through."""
        sent = self._own = encoded.sent
        count = sent.count if sent.values is None else int(np.count_nonzero(sent.values))
        if thresholds is None:
            self._advance(self._state.thresholds, 0.0)
            return Update(encoded.payload, count, 0.0, dense=True)
        taus = [float(tau) for tau in np.array(thresholds, self._store.quantum_type)]
        clipped = self._settle(self._counts(sent, count), taus)
        return Update(encoded.payload, count, math.fsum(taus) / len(taus), clipped)

    def _counts(self, sent: Parsed, count: int) -> Sequence[int]:
        """Return how many elements each threshold let through."""
        if len(self._store.pieces) == 1:
            return [count]
        if sent.values is None:
            return [int(one) for one in np.diff(self._edges(self._codes, count))]
        return [int(np.count_nonzero(sent.values[start:stop])) for start, stop in self._spans]

    def _settle(self, counts: Sequence[int], taus: Sequence[float]) -> float:
        clipped, states, process_ = 0.0, [], self._options.residual_post_processor.process_
        for piece, count, tau, state in zip(self._store.pieces, counts, taus, self._state.thresholds, strict=True):
            share = count / max(1, len(piece))
            states.append(replace(state, threshold=tau, share=share, steps=state.steps + 1))
            clipped += process_(self._stepper.own_form(piece), tau, self._state.iteration)
        self._advance(tuple(states), clipped)
        return clipped

    def _edges(self, codes: Array, count: int) -> Array:
        """Return where each tensor's codes start, and where the last one's stop."""
        return np.append(np.searchsorted(codes[:count], self._starts), count)

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


def check_compressible(vector: Tensor) -> None:
    """Raise ConfigurationError for parameters of a type or number that a `Compressor` does not take."""
    if vector.dtype not in (torch.float32, torch.float64):
        raise ConfigurationError(
            f"shared training takes float32 or float64 parameters, got {vector.dtype}; for mixed precision keep them "
            "float32 and give the network autocast=torch.bfloat16"
        )
    if len(vector) > _MOST:
        raise ConfigurationError(f"shared training takes at most {_MOST} parameters, got {len(vector)}")
