"""The end of an epoch, and of a fit: members' parameters, buffers and optimizers become one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strombus.compression import Compressor, CompressorState
from strombus.errors import WireError
from strombus.networks import Replica
from strombus.networks.flat import read_buffers, write_buffers_
from strombus.networks.parcels import pack_state, unpack_state
from strombus.types import NetworkState, UpdaterState
from strombus.worker.merging import Contribution, Pile, Summary, add_up, finish_round
from strombus.worker.peers import Kind, Peers

__all__ = ["Carried", "Settler"]

_RESIDUAL = "residual"
_SHARE = 0.01
"""Part of the training time that sending whole parameters between epochs may take."""


@dataclass(frozen=True)
class Carried:
    """What the next fit takes up: the members' mean residual, and their thresholds."""

    compressor: CompressorState


class Settler:
    """Brings the members of a gang to one state.

    Members that add one another's updates as they come end an epoch with the same updates added in
    different orders: their parameters differ by rounding. Rank 0's are then sent to all: after the first
    epoch, from then on as often as it costs at most 1 % of the time, and when the fit is over.

    Parameters
    ----------
    exact : bool
        Whether all members have the same bits anyway, as at staleness 0.
    """

    def __init__(self, peers: Peers, replica: Replica, compressor: Compressor, exact: bool) -> None:
        self._peers, self._replica, self._compressor = peers, replica, compressor
        self._exact = exact or peers.size == 1
        self._due = 0.0
        self._rows = 0

    def take_up(self, carried: Carried) -> None:
        """Go on with what an earlier fit ended with."""
        self._compressor.load(carried.compressor)

    def note(self) -> bytes:
        """Return what the others must know of this member when it ends an epoch."""
        sends = self._peers.rank == 0 and not self._exact and time.monotonic() >= self._due
        return json.dumps({"iteration": self._replica.iteration, "sends": sends}).encode()

    def settle(self, own: bytes, notes: Mapping[int, bytes], rows: int) -> None:
        """Make this epoch's replicas one; `rows` is what this member has trained in it."""
        self._rows += rows
        read = {rank: _read(note) for rank, note in {**notes, self._peers.rank: own}.items()}
        self._replica.iteration = max(iteration for iteration, _ in read.values())
        if read[0][1]:
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
        terms = tuple(Contribution(one, max(one.iteration, 2.0**-100), Summary(), 0) for one in found)
        write_buffers_(self._replica.module, finish_round(Pile(terms)).state.buffers)

    # -- the whole state

    def current_state(self) -> NetworkState | None:
        """Return, on rank 0, parameters, buffers and the mean of the members' optimizer states; None elsewhere."""
        return self._collect({})

    def final_state(self) -> tuple[NetworkState | None, Carried | None]:
        """Make all parameters rank 0's; return there `current_state`, and the mean residual with its thresholds."""
        if not self._exact:
            self._send_parameters()
        mine = self._compressor.state()
        state = self._collect({_RESIDUAL: mine.residual})
        if state is None or state.updater is None:
            return state, None
        tensors = dict(state.updater.tensors)
        carried = Carried(replace(mine, residual=tensors.pop(_RESIDUAL), skipped=0, clipped=0.0))
        return replace(state, updater=replace(state.updater, tensors=tensors)), carried

    def _collect(self, more: Mapping[str, NDArray[Any]]) -> NetworkState | None:
        """Average the optimizers' tensors, and `more`, on rank 0, over the members that have trained in this fit.

        Step counts and schedules come from who trained the most. Rank 0 asks one member after another, so that it holds
        one state beside the sum, and all hear it; nobody leaves before it has them all.
        """
        state = self._replica.state()
        updater = state.updater or UpdaterState()
        tensors = {**updater.tensors, **more}
        mine = NetworkState(state.parameters[:0], {}, replace(updater, tensors=tensors), self._rows)
        if self._peers.rank != 0:
            self._hand_in(mine)
            return None
        total = _contribution(mine)
        for rank in self._peers.others:
            self._peers.send(Kind.REQUEST, rank)
            theirs = unpack_state(self._peers.take_whole(rank, Kind.STATE, "its state"))
            total = add_up((total, _contribution(theirs)))
        self._peers.send(Kind.REQUEST, self._peers.size)
        return replace(state, updater=finish_round(total).state.updater)

    def _hand_in(self, mine: NetworkState) -> None:
        """Send this member's state when it is asked for, and wait until all have."""
        asked = 0
        while asked < self._peers.size:
            self._peers.wait_for_word("a request for the state", [0])
            asked = self._peers.take(0, Kind.REQUEST).step
            if asked == self._peers.rank:
                self._peers.send_whole(Kind.STATE, pack_state(mine), to=0)


def _contribution(state: NetworkState) -> Contribution:
    """Return a member's part in the mean; its state counts rows where others count minibatches."""
    return Contribution(state, 1.0 if state.iteration else 2.0**-100, Summary(), state.iteration)


def _read(note: bytes) -> tuple[int, bool]:
    try:
        values = json.loads(note)
        return int(values["iteration"]), bool(values["sends"])
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"a peer's note cannot be read: {type(error).__name__}: {error}") from error
