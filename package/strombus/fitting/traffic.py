"""What a worker sends, estimated before it does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from strombus.compression import AdaptiveThresholdAlgorithm, TargetSparsityThresholdAlgorithm, ThresholdAlgorithm
from strombus.compression.thresholds.base import ThresholdState
from strombus.masters.base import TrainingMaster
from strombus.masters.parameter_averaging import ParameterAveragingTrainingMaster
from strombus.masters.shared_training import SharedTrainingMaster
from strombus.networks import Network, Replica

__all__ = ["Traffic", "describe_bytes", "traffic_of"]

_HEADER = 20
"""Bytes of an update before its elements."""
_LATE = 10_000
"""Steps after which a threshold algorithm has come to the share that it keeps to."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a worker sends.

    Parameters
    ----------
    least, most : int
        Bytes of an update to one other worker in shared training, once its first hundred steps are over; of what goes
        up to the mean, and comes back, in averaging.
    each : str
        What they are bytes of.
    to : int
        Workers to whom each sends them.
    """

    least: int
    most: int
    each: str
    to: int = 1

    def __str__(self) -> str:
        sizes = dict.fromkeys((describe_bytes(self.least), describe_bytes(self.most)))
        return f"about {' to '.join(sizes)} {self.each}"


def describe_bytes(count: float) -> str:
    """Return a number of bytes to three digits or so."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.3g} {unit}"
    return f"{count:,.0f} bytes"


def traffic_of(network: Network, master: TrainingMaster, workers: int) -> Traffic | None:
    """Return what one of `workers` sends; None where there is nobody else, or nobody can say."""
    if workers < 2:
        return None
    if isinstance(master, ParameterAveragingTrainingMaster):
        size = _averaged_bytes(network, master.save_updater)
        return Traffic(size, size, "up to the mean and as much back, for each worker in a round")
    if isinstance(master, SharedTrainingMaster):
        return _sharing(network, master, workers - 1)
    return None


def _averaged_bytes(network: Network, updater: bool) -> int:
    """Return the bytes of a network's state, of its optimizer's too where that is averaged."""
    state = network.state()
    if updater and state.updater is None:
        state = _after_a_step(network).state()
    tensors = state.updater.tensors.values() if updater and state.updater is not None else ()
    return int(sum(array.nbytes for array in (state.parameters, *state.buffers.values(), *tensors)))


def _after_a_step(network: Network) -> Replica:
    """Return a copy whose optimizer has made what it keeps; an optimizer that evaluates the loss keeps nothing."""
    replica = network.replica("cpu")
    if not replica.evaluates_loss:
        for parameter in replica.flat.parameters:
            parameter.grad = torch.zeros_like(parameter)
        replica.optimizer.step()
    return replica


def _sharing(network: Network, master: SharedTrainingMaster, others: int) -> Traffic | None:
    elements = network.num_params(trainable_only=True)
    whom = "the other worker" if others == 1 else f"{others} other workers"
    each = f"in each step of a worker, to {whom}"
    if master.encoder.name == "dense":
        dtype = getattr(master.encoder, "dtype", None)
        size = elements * (network.dtype if dtype is None else getattr(torch, dtype)).itemsize + _HEADER
        return Traffic(size, size, each, others)
    write = {"threshold": _coded_bytes, "dl4j": _word_bytes}.get(master.encoder.name)
    shares = _shares(master.threshold_algorithm, elements)
    if write is None or shares is None:
        return None
    least, most = (math.ceil(write(elements, share)) + _HEADER for share in shares)
    return Traffic(least, most, each, others)


def _shares(algorithm: ThresholdAlgorithm, elements: int) -> tuple[float, float] | None:
    """Return the least and the largest share of elements that an algorithm aims at; None for one that does not."""
    if isinstance(algorithm, TargetSparsityThresholdAlgorithm):
        return algorithm.sparsity_target, algorithm.sparsity_target
    if not isinstance(algorithm, AdaptiveThresholdAlgorithm):
        return None
    if algorithm.initial_threshold is not None:
        return algorithm.min_target_sparsity, algorithm.max_target_sparsity
    most = min(1.0, algorithm.share_to_estimate(ThresholdState(steps=_LATE, elements=elements)))
    return most / 2, most


def _coded_bytes(elements: int, share: float) -> float:
    """Return the entropy of which elements are sent, and a sign for each; a fifth of a byte each where that is less."""
    if not 0 < share < 1:
        return elements / 5 * (share > 0)
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    return min(elements * (entropy + share) / 8, elements / 5)


def _word_bytes(elements: int, share: float) -> float:
    """Return four bytes for each element that is sent, or two bits for each of all."""
    return min(4 * elements * share, elements / 4) + 16
