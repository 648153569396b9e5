"""The end of an epoch, and of a fit: members' parameters, buffers and optimizers become one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from strombus.compression import Compressor, ThresholdState, mean_state
from strombus.errors import WireError
from strombus.networks import Replica
from strombus.networks.flat import read_buffers, write_buffers_
from strombus.networks.parcels import pack_state, unpack_state
from strombus.types import NetworkState, UpdaterState
from strombus.worker.carrying import Carried
from strombus.worker.merging import Contribution, Pile, Summary, add_up, finish_round
from strombus.worker.peers import Kind, Peers

__all__ = ["Agreement", "Settler"]

_IDLE = 2.0**-100
"""Weight in a mean of who has not trained: none, unless nobody has."""
_SHARE = 0.01
"""Part of the training time that sending whole parameters between epochs may take."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the members know of one another at the end of a stretch of steps.

    Parameters
    ----------
    iteration : int
        The largest.
    sends : bool
        Whether rank 0 sends its parameters now.
    whole : bool
        Whether no member has left rows.
    saves : bool
        Whether a checkpoint is made.
    stretch : int
        Steps of the next one.
    leaves : bool
        Whether a member wants all to end here, with a checkpoint if any are made.
    """

    iteration: int
    sends: bool
    whole: bool
    saves: bool
    stretch: int
    leaves: bool = False


class Settler:
    """Brings the members of a gang to one state.

    Members that add one another's updates as they come end an epoch with the same updates added in
    different orders: their parameters differ by rounding. Rank 0's are then sent to all: after the first
    epoch, from then on as often as it costs at most 1 % of the time, and when the fit is over.

    Parameters
    ----------
    combine : {"mean", "sum"}
        How much of a member's updates counts, and so of its residual.
    exact : bool
        Whether all members have the same bits anyway, as at staleness 0.
    """

    def __init__(
        self, peers: Peers, replica: Replica, compressor: Compressor, combine: Literal["mean", "sum"], exact: bool
    ) -> None:
        self._peers, self._replica, self._compressor = peers, replica, compressor
        self._sums = combine == "sum"
        self._exact = exact or peers.size == 1
        self._due = 0.0
        self.rows = 0

    def take_up(self, carried: Carried) -> None:
        """Go on with what an earlier fit ended with: all together send it once, however many they are."""
        share = 1 / self._peers.size if self._sums else 1.0
        self._compressor.load(carried.take_up(self._replica.flat, self._compressor.state(), share))

    def note(self, whole: bool, saves: bool = False, stretch: int = 0, leaves: bool = False) -> bytes:
        """Return what the others must know of this member when it ends a stretch; `whole` if it has left no rows.

        Rank 0's says whether a checkpoint is made now, and how many steps the next stretch has.
        """
        sends = self._peers.rank == 0 and not self._exact and time.monotonic() >= self._due
        values = {"iteration": self._replica.iteration, "sends": sends, "whole": whole}
        return json.dumps({**values, "saves": saves, "stretch": stretch, "leaves": leaves}).encode()

    def agree(self, own: bytes, notes: Mapping[int, bytes]) -> Agreement:
        """Return what the members' notes come to, the same for all."""
        read = {rank: _read(note) for rank, note in {**notes, self._peers.rank: own}.items()}
        whole, leaves = all(note.whole for note in read.values()), any(note.leaves for note in read.values())
        return replace(read[0], iteration=max(note.iteration for note in read.values()), whole=whole, leaves=leaves)

    def settle(self, agreed: Agreement, rows: int) -> None:
        """Make this epoch's replicas one; `rows` is what this member has trained in it."""
        self.rows += rows
        self._replica.iteration = agreed.iteration
        if agreed.sends:
            self._send_parameters()
        if self._peers.size > 1:
            self._join_buffers(rows)

    def _send_parameters(self) -> None:
        started = time.monotonic()
        vector = self._replica.flat.vector
        if self._peers.rank == 0:
            self._peers.send_whole(Kind.PARAMETERS, vector.detach().cpu().numpy().tobytes())
        else:
            payload = self._peers.take_whole(0, Kind.PARAMETERS, "the parameters")
            dtype = self._replica.flat.read()[:0].dtype
            if len(payload) != len(vector) * dtype.itemsize:
                raise WireError(f"member 0 sent {len(payload)} bytes of parameters, wanted {len(vector)} values")
            self._replica.flat.load_(np.frombuffer(payload, dtype))
        self._peers.gather(b"", "the parameters' receipt")
        now = time.monotonic()
        self._due = now + (now - started) / _SHARE

    def _join_buffers(self, rows: int) -> None:
        """Average floating buffers, weighted by rows; others take the maximum."""
        buffers = read_buffers(self._replica.module)
        if not buffers:
            return
        nothing = np.empty(0, np.float32)
        mine = NetworkState(nothing, buffers, None, rows)
        found = [unpack_state(data) for data in self._peers.gather(pack_state(mine), "the buffers")]
        terms = tuple(Contribution(one, max(one.iteration, _IDLE), Summary(), 0) for one in found)
        write_buffers_(self._replica.module, finish_round(Pile(terms)).state.buffers)

    # -- the whole state

    def current_state(self) -> NetworkState | None:
        """Return, on rank 0, parameters, buffers and the mean of the members' optimizer states; None elsewhere."""
        found = self._collect(np.empty(0, np.float32))
        return None if found is None else found[0]

    def final_state(self) -> tuple[NetworkState | None, Carried | None]:
        """Make all parameters rank 0's; return there `current_state`, and what the members have not yet sent."""
        if not self._exact:
            self._send_parameters()
        mine = self._compressor.state()
        thresholds = self._mean_thresholds(mine.thresholds)
        found = self._collect(mine.residual)
        if found is None:
            return None, None
        state, residual = found
        return state, Carried.of(self._replica.flat, replace(mine, residual=residual, thresholds=thresholds))

    def own_state(self) -> tuple[NetworkState, Carried]:
        """Return what this member knows of `final_state`: with its own optimizer's state and residual."""
        return self._replica.state(), Carried.of(self._replica.flat, self._compressor.state())

    def _mean_thresholds(self, mine: tuple[ThresholdState, ...]) -> tuple[ThresholdState, ...]:
        """Return the mean of the members' thresholds, each with its statistics."""
        note = json.dumps([astuple(state) for state in mine]).encode()
        members = [_read_thresholds(found, len(mine)) for found in self._peers.gather(note, "the thresholds")]
        return tuple(mean_state(states) for states in zip(*members, strict=True))

    def _collect(self, residual: NDArray[Any]) -> tuple[NetworkState, NDArray[Any]] | None:
        """Join the optimizers' tensors, and the residuals, on rank 0; None elsewhere.

        Of the members that have trained in this fit the optimizers' mean is taken; step counts and schedules come from
        who trained the most. Rank 0 asks one member after another, so that it holds one state beside the sum, and all
        hear it; nobody leaves before it has them all.
        """
        state = self._replica.state()
        mine = NetworkState(residual, {}, state.updater or UpdaterState(), self.rows)
        if self._peers.rank != 0:
            self._hand_in(mine)
            return None
        updater, left = _updater_of(mine), self._left_of(mine)
        for rank in self._peers.others:
            self._peers.send(Kind.REQUEST, rank)
            theirs = unpack_state(self._peers.take_whole(rank, Kind.STATE, "its state"))
            if theirs.parameters.shape != residual.shape:
                raise WireError(f"member {rank} sent a residual of {theirs.parameters.size}, wanted {residual.size}")
            updater = add_up((updater, _updater_of(theirs)))
            left = add_up((left, self._left_of(theirs)))
        self._peers.send(Kind.REQUEST, self._peers.size)
        left = replace(left, weight=1.0) if self._sums else left
        return replace(state, updater=finish_round(updater).state.updater), finish_round(left).state.parameters

    def _left_of(self, state: NetworkState) -> Contribution:
        """Return a member's part in what is still to be added, which travels in the place of its parameters.

        The weights of a step's updates add up to 1 with "mean", so that of those who train each holds all that is left
        once; with "sum" everybody, trained or not, holds some of it.
        """
        weight = 1.0 if self._sums or state.iteration else _IDLE
        return Contribution(NetworkState(state.parameters, {}, None, 0), weight, Summary(), 0)

    def _hand_in(self, mine: NetworkState) -> None:
        """Send this member's state when it is asked for, and wait until all have."""
        asked = 0
        while asked < self._peers.size:
            self._peers.wait_for_word("a request for the state", [0])
            asked = self._peers.take(0, Kind.REQUEST).step
            if asked == self._peers.rank:
                self._peers.send_whole(Kind.STATE, pack_state(mine), to=0)


def _updater_of(state: NetworkState) -> Contribution:
    """Return a member's part in the mean of optimizers; its state counts rows where others count minibatches."""
    alone = replace(state, parameters=state.parameters[:0])
    return Contribution(alone, 1.0 if state.iteration else _IDLE, Summary(), state.iteration)


def _read_thresholds(note: bytes, count: int) -> list[ThresholdState]:
    try:
        states = [ThresholdState(*values) for values in json.loads(note)]
    except (TypeError, ValueError) as error:
        raise WireError(f"a peer's thresholds cannot be read: {type(error).__name__}: {error}") from error
    if len(states) != count:
        raise WireError(f"a peer has {len(states)} thresholds, wanted {count}")
    return states


def _read(note: bytes) -> Agreement:
    try:
        values = json.loads(note)
        iteration, stretch = int(values["iteration"]), int(values["stretch"])
        sends, whole, saves, leaves = (bool(values[name]) for name in ("sends", "whole", "saves", "leaves"))
        return Agreement(iteration, sends, whole, saves, stretch, leaves)
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"a peer's note cannot be read: {type(error).__name__}: {error}") from error
