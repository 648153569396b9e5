"""The arithmetic of averaging: contributions of workers, merged in a tree, finished once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.types import Event, NetworkState, UpdaterState

__all__ = ["Averaged", "Contribution", "Summary", "finish_round", "merge_contributions"]

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Summary:
    """The small figures of a round.

    Parameters
    ----------
    examples, minibatches : int
    iteration : int
        The network's iteration after the round.
    score_sum, count : float
        Losses of the workers' last minibatches times their counts, and the counts.
    events : tuple of Event
    hooks : tuple of (int, tuple)
        Rank, and what each hook's ``state()`` returned there.
    """

    examples: int = 0
    minibatches: int = 0
    iteration: int = 0
    score_sum: float = 0.0
    count: float = 0.0
    events: tuple[Event, ...] = ()
    hooks: tuple[tuple[int, tuple[Any, ...]], ...] = ()

    @property
    def score(self) -> float:
        """Mean loss of the last minibatches, weighted by their counts."""
        return self.score_sum / self.count if self.count else float("nan")

    def __add__(self, other: Summary) -> Summary:
        return Summary(
            self.examples + other.examples,
            self.minibatches + other.minibatches,
            max(self.iteration, other.iteration),
            self.score_sum + other.score_sum,
            self.count + other.count,
            self.events + other.events,
            self.hooks + other.hooks,
        )


@dataclass(frozen=True)
class Contribution:
    """What one worker brings to the mean, or several merged.

    Parameters
    ----------
    state : NetworkState
        Of one worker in the network's dtype; of several, weighted sums in float64.
    weight : float
        Examples (or terms of the loss) behind it; 1 for each worker when uniform.
    merged : bool
        Whether `state` holds sums.
    steps : int
        Steps of the worker from whom step counts, hyper-parameters and schedule are taken.
    dtypes : mapping of str to dtype
        What each sum goes back to.
    left_out : mapping of str to shape
        Updater arrays that are not averaged and did not travel.
    """

    state: NetworkState
    weight: float
    summary: Summary
    steps: int
    epoch: int = 0
    merged: bool = False
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    left_out: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Averaged:
    """The mean after a round of `epoch`: what the next one starts from."""

    state: NetworkState
    epoch: int
    summary: Summary = Summary()
    left_out: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def _averages(name: str, array: NDArray[Any]) -> bool:
    # 0-d arrays of an updater count steps: a mean of counts would be a count nobody has taken.
    return np.issubdtype(array.dtype, np.floating) and (array.ndim > 0 or not name.startswith("updater."))


def _named(state: NetworkState) -> dict[str, NDArray[Any]]:
    tensors = state.updater.tensors if state.updater else {}
    return {
        "parameters": state.parameters,
        **{f"buffer.{name}": np.asarray(array) for name, array in state.buffers.items()},
        **{f"updater.{name}": np.asarray(array) for name, array in tensors.items()},
    }


def _with(state: NetworkState, arrays: Arrays) -> NetworkState:
    """Return `state` with its arrays replaced."""
    buffers = {name[7:]: array for name, array in arrays.items() if name.startswith("buffer.")}
    tensors = {name[8:]: array for name, array in arrays.items() if name.startswith("updater.")}
    updater = state.updater and UpdaterState(tensors, state.updater.groups, state.updater.schedule)
    return replace(state, parameters=arrays["parameters"], buffers=buffers, updater=updater)


def _widen(contribution: Contribution) -> Contribution:
    """Turn one worker's values into weighted float64 sums."""
    if contribution.merged:
        return contribution
    named = _named(contribution.state)
    sums = {
        name: np.multiply(array, contribution.weight, dtype=np.float64) if _averages(name, array) else array
        for name, array in named.items()
    }
    dtypes = {name: array.dtype for name, array in named.items() if _averages(name, array)}
    return replace(contribution, state=_with(contribution.state, sums), merged=True, dtypes=dtypes)


def merge_contributions(left: Contribution, right: Contribution) -> Contribution:
    """Add two contributions; sums in float64, in the order left, right.

    An updater array that one side lacks (a parameter without a gradient there) counts as zeros, as
    optimizers start from. Integer buffers take the maximum.
    """
    left, right = _widen(left), _widen(right)
    ours, theirs = _named(left.state), _named(right.state)
    leads = left.steps >= right.steps
    merged = {**theirs, **ours} if leads else {**ours, **theirs}
    dtypes = {**right.dtypes, **left.dtypes}
    for name in ours.keys() & theirs.keys():
        if name in dtypes:
            merged[name] = ours[name] + theirs[name]
        elif name.startswith("buffer."):
            merged[name] = np.maximum(ours[name], theirs[name])
    return Contribution(
        _with(left.state if leads else right.state, merged),
        left.weight + right.weight,
        left.summary + right.summary,
        max(left.steps, right.steps),
        left.epoch,
        merged=True,
        dtypes=dtypes,
        left_out={**right.left_out, **left.left_out},
    )


def finish_round(total: Contribution) -> Averaged:
    """Divide the sums by the weight; one worker's values stay as they are, bit for bit."""
    if not total.merged:
        return Averaged(total.state, total.epoch, total.summary, total.left_out)
    named = _named(total.state)
    means = {
        name: (array / total.weight).astype(total.dtypes[name]) if name in total.dtypes else array
        for name, array in named.items()
    }
    return Averaged(_with(total.state, means), total.epoch, total.summary, total.left_out)
