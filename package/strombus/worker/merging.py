"""The arithmetic of averaging: contributions of workers, merged in a tree, finished once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.stats import Recorder, Said, TrainingStats
from strombus.types import NetworkState, UpdaterState, WorkerReport

__all__ = ["Averaged", "Contribution", "Pile", "Summary", "add_up", "finish_round", "merge_contributions"]

Array = NDArray[Any]

# Elements that are summed at a time: they stay in the processor's cache from the first term to the division.
_STEP = 1 << 16


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
    timings : tuple of TrainingStats
        Of each task; empty unless phases are timed.
    hooks : tuple of (int, tuple)
        Rank, and what each hook's ``state()`` returned there.
    reports : tuple of WorkerReport
        What each worker did.
    finite : bool
        Whether the mean of their parameters is.
    said : tuple of (int, str, tuple)
        Rank and place of each worker that has logged something, and what.
    """

    examples: int = 0
    minibatches: int = 0
    iteration: int = 0
    score_sum: float = 0.0
    count: float = 0.0
    timings: tuple[TrainingStats, ...] = ()
    hooks: tuple[tuple[int, tuple[Any, ...]], ...] = ()
    reports: tuple[WorkerReport, ...] = ()
    finite: bool = True
    said: tuple[tuple[int, str, tuple[Said, ...]], ...] = ()

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
            self.timings + other.timings,
            self.hooks + other.hooks,
            self.reports + other.reports,
            said=self.said + other.said,
        )


@dataclass(frozen=True)
class Contribution:
    """What one worker brings to the mean, or what a `Pile` of them comes to.

    Parameters
    ----------
    state : NetworkState
        Of one worker in the network's dtype; of a pile, weighted sums in float64.
    weight : float
        Examples (or terms of the loss) behind it; 1 for each worker when uniform.
    steps : int
        Steps of the optimizer of the worker from whom step counts, hyper-parameters and schedule are taken.
    merged : bool
        Whether `state` holds sums.
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
class Pile:
    """Contributions in the order in which they are to be added; summed when they travel, or at the end.

    `of_sums` says that the terms are sums already. Order and grouping are those of the merge tree whether
    a pile travelled in between or not, so that a run gives the same bits wherever its tasks were placed.
    """

    terms: tuple[Contribution, ...]
    of_sums: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (add_up(self.terms),)


@dataclass(frozen=True)
class Averaged:
    """The mean after a round of `epoch`: what the next one starts from."""

    state: NetworkState
    epoch: int
    summary: Summary = Summary()
    left_out: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def merge_contributions(left: Contribution | Pile, right: Contribution | Pile) -> Pile:
    """Add two contributions, left before right."""
    if isinstance(right, Contribution) and not right.merged:
        return Pile((*(left.terms if isinstance(left, Pile) else (left,)), right))
    whole = left.terms if isinstance(left, Pile) and left.of_sums else (_summed(left),)
    return Pile((*whole, _summed(right)), of_sums=True)


def finish_round(total: Contribution | Pile) -> Averaged:
    """Divide the sums by the weight; one worker's values stay as they are, bit for bit.

    An updater array that a worker lacks (a parameter without a gradient there) counts as zeros, as
    optimizers start from. Integer buffers take the maximum.
    """
    if isinstance(total, Contribution) and not total.merged:
        return Averaged(total.state, total.epoch, total.summary, total.left_out)
    terms = total.terms if isinstance(total, Pile) else (total,)
    recorder = Recorder(any(term.summary.timings for term in terms))
    with recorder.phase("aggregate"):
        whole = add_up(terms, divide=True)
    # What each worker brings is finite, and was checked there; a sum of it may overflow.
    summary = replace(whole.summary, finite=bool(np.isfinite(whole.state.parameters).all()))
    if recorder.enabled:
        summary = replace(summary, timings=(*summary.timings, recorder.take()))
    return Averaged(whole.state, whole.epoch, summary, whole.left_out)


def _itself(contribution: Contribution) -> Contribution:
    return contribution


def _summed(one: Contribution | Pile) -> Contribution:
    if isinstance(one, Pile):
        return add_up(one.terms)
    return one if one.merged else add_up((one,))


def _averages(name: str, array: Array) -> bool:
    # 0-d arrays of an updater count steps: a mean of counts would be a count nobody has taken.
    return np.issubdtype(array.dtype, np.floating) and (array.ndim > 0 or not name.startswith("updater."))


def _named(state: NetworkState) -> dict[str, Array]:
    tensors = state.updater.tensors if state.updater else {}
    return {
        "parameters": state.parameters,
        **{f"buffer.{name}": np.asarray(array) for name, array in state.buffers.items()},
        **{f"updater.{name}": np.asarray(array) for name, array in tensors.items()},
    }


def _with(state: NetworkState, arrays: Mapping[str, Array]) -> NetworkState:
    """Return `state` with its arrays replaced."""
    buffers = {name[7:]: array for name, array in arrays.items() if name.startswith("buffer.")}
    tensors = {name[8:]: array for name, array in arrays.items() if name.startswith("updater.")}
    updater = state.updater and UpdaterState(tensors, state.updater.groups, state.updater.schedule)
    return replace(state, parameters=arrays["parameters"], buffers=buffers, updater=updater)


def add_up(terms: Sequence[Contribution], divide: bool = False) -> Contribution:
    """Add up contributions in float64, from first to last; `divide` makes means of them in their own dtypes."""
    named = [_named(term.state) for term in terms]
    lead = max(range(len(terms)), key=lambda i: (terms[i].steps, -i))
    weight = sum(term.weight for term in terms)
    arrays: dict[str, Array] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    for name in dict.fromkeys(name for arrays_of_term in named for name in arrays_of_term):
        found = [(part[name], term) for part, term in zip(named, terms, strict=True) if name in part]
        first, owner = found[0]
        dtypes_here = owner.dtypes.get(name, first.dtype)
        if _averages(name, first):
            dtypes[name] = np.dtype(dtypes_here)
            factors = [None if term.merged else term.weight for _, term in found]
            into = np.empty(first.shape, dtypes[name] if divide else np.float64)
            arrays[name] = _weighted([array for array, _ in found], factors, weight if divide else None, into)
        elif name.startswith("buffer."):
            arrays[name] = np.maximum.reduce([array for array, _ in found])
        else:
            arrays[name] = named[lead].get(name, first)
    return Contribution(
        _with(terms[lead].state, arrays),
        weight,
        sum((term.summary for term in terms[1:]), terms[0].summary),
        terms[lead].steps,
        terms[lead].epoch,
        merged=True,
        dtypes=dtypes,
        left_out={name: shape for term in reversed(terms) for name, shape in term.left_out.items()},
    )


@np.errstate(over="ignore", invalid="ignore")  # what overflows is found in the mean
def _weighted(arrays: Sequence[Array], factors: Sequence[float | None], divisor: float | None, into: Array) -> Array:
    """Write ``sum(array * factor)``, divided where there is a divisor, into `into`; factor None leaves as it is."""
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    out = into.reshape(-1)
    total, term = np.empty(min(_STEP, out.size)), np.empty(min(_STEP, out.size))
    for start in range(0, out.size, _STEP):
        stop = min(out.size, start + _STEP)
        acc, here = total[: stop - start], term[: stop - start]
        for number, (array, factor) in enumerate(zip(flat, factors, strict=True)):
            target = here if number else acc
            np.multiply(array[start:stop], 1.0 if factor is None else factor, out=target, dtype=np.float64)
            if number:
                acc += here
        if divisor is not None:
            acc /= divisor
        out[start:stop] = acc
    return into
