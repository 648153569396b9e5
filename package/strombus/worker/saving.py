"""What a member of a gang writes at a checkpoint, and goes on from."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from strombus.compression import Compressor, ThresholdState, mean_state
from strombus.errors import DataError, WireError
from strombus.executors.base import Member
from strombus.files import join, write_whole
from strombus.networks import Network, Replica
from strombus.networks.copies import DRAWING
from strombus.networks.parcels import pack_arrays, unpack_arrays
from strombus.networks.saving import pack
from strombus.runs import MODEL, Checkpoint, CheckpointStore, Interval, Saving, digest, member_file
from strombus.types import Cursor, Event, NetworkState, UpdaterState
from strombus.worker.carrying import Carried
from strombus.worker.merging import Contribution, Summary, add_up, finish_round

__all__ = ["WHOLE", "Cuts", "MemberRecord", "Saver", "merge_records", "read_records"]

WHOLE = 2**62
"""Steps of a stretch that ends with the epoch."""
_FIRST = 16
"""Steps until the first cut of an interval in seconds, when no step was timed yet."""
_IDLE = 2.0**-100
_FIGURES = ("iteration", "rows", "epoch_rows", "skipped", "clipped")


class Cuts:
    """After how many steps the members meet, and whether a checkpoint is made then; rank 0 decides.

    Parameters
    ----------
    interval : Interval
    max_share : float
    began : int
        See `strombus.runs.Saving`.
    """

    def __init__(self, interval: Interval, max_share: float, began: int) -> None:
        self._interval, self._share, self._began = interval, max_share, began
        self._since = 0  # steps
        self._saved_at = self._began_at = time.monotonic()
        self._not_before = 0.0
        self._pause = 0.0  # seconds that nothing is written after a checkpoint
        self._step = 0.0  # seconds

    def first(self) -> int:
        """Return the steps until the first cut, which all members know without a word."""
        return {"epochs": WHOLE, "steps": self._interval.count, "seconds": _FIRST}[self._interval.unit]

    def cut(self, steps: int, epoch: int, ends: bool) -> tuple[bool, int]:
        """Return whether a checkpoint is made after `steps` more, and the steps until the next cut.

        Parameters
        ----------
        ends : bool
            Whether it is the end of `epoch`.
        """
        now = time.monotonic()
        if steps:
            self._step = (now - self._began_at) / steps
        self._since += steps
        if self._interval.unit == "epochs":
            return ends and (epoch + 1 - self._began) % self._interval.count == 0, WHOLE
        saves = now >= self._not_before and self._passed(now) >= self._interval.count
        return saves, self._next(now, saves)

    def _passed(self, now: float) -> float:
        return self._since if self._interval.unit == "steps" else now - self._saved_at

    def go_on(self, started: float, saved: bool) -> None:
        """Begin the next stretch, after a cut that began at `started`."""
        now = time.monotonic()
        if saved:
            self._since, self._saved_at = 0, now
            self._pause = (now - started) * (1 / self._share - 1)
            self._not_before = now + self._pause
        self._began_at = now

    def _next(self, now: float, saves: bool) -> int:
        count = self._interval.count
        pause = self._pause if saves else max(0.0, self._not_before - now)
        wait = pause / self._step if self._step else 0.0
        if self._interval.unit == "steps":
            due = count - (0 if saves else self._since % count)
            return due + count * math.ceil(max(0.0, wait - due) / count)
        left = count if saves else max(0.0, count - self._passed(now))
        return max(1, math.ceil(max(left / self._step if self._step else _FIRST, wait)))


@dataclass(frozen=True)
class MemberRecord:
    """A member's own state: what the network's does not hold.

    Parameters
    ----------
    carried : Carried
        Residual and thresholds.
    updater : UpdaterState or None
        Its optimizer's.
    buffers : mapping of str to ndarray
        Its own, since members join theirs at an epoch's end.
    random : ndarray of uint8
        torch's generator.
    figures : mapping of str to number
        Minibatches on its path (``iteration``), ``rows`` that it trained in the fit's epochs before this one and
        ``epoch_rows`` in this one, ``skipped`` and ``clipped``.
    """

    carried: Carried
    updater: UpdaterState | None
    buffers: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    random: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.uint8))
    figures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, replica: Replica, compressor: Compressor, rows: int, epoch_rows: int) -> MemberRecord:
        """Return the record of a member."""
        state, own = replica.state(), compressor.state()
        figures = {
            "iteration": replica.iteration,
            "rows": rows,
            "epoch_rows": epoch_rows,
            "skipped": own.skipped,
            "clipped": own.clipped,
        }
        with DRAWING.hold():
            random = torch.get_rng_state().numpy()
        return cls(Carried.of(replica.flat, own), state.updater, state.buffers, random, figures)

    def load_(self, replica: Replica, compressor: Compressor) -> None:
        """Bring a member to this state; its parameters are the network's."""
        own = self.carried.take_up(replica.flat, compressor.state(), 1.0)
        skipped, clipped = int(self.figures["skipped"]), float(self.figures["clipped"])
        compressor.load(replace(own, skipped=skipped, clipped=clipped))
        parameters = replica.flat.read()
        iteration = int(self.figures["iteration"])
        replica.load(NetworkState(parameters, self.buffers, self.updater, iteration), updater=self.updater is not None)

    def seed(self) -> None:
        """Go on with the random numbers where they were."""
        with DRAWING.hold():
            torch.set_rng_state(torch.from_numpy(self.random.copy()))

    def pack(self) -> bytes:
        """Return a file's content."""
        arrays = {f"residual.{name}": array for name, array in self.carried.residual.items()}
        arrays |= {f"buffer.{name}": np.asarray(array) for name, array in self.buffers.items()}
        record: dict[str, Any] = {
            "thresholds": [[list(names), list(astuple(state))] for names, state in self.carried.thresholds.items()],
            "steps": self.carried.iteration,
            "figures": dict(self.figures),
            "updater": None,
        }
        if self.updater is not None:
            arrays |= {f"updater.{name}": np.asarray(array) for name, array in self.updater.tensors.items()}
            record["updater"] = {"groups": list(self.updater.groups), "schedule": self.updater.schedule}
        return pack_arrays({**arrays, "random": self.random}, record)

    @classmethod
    def unpack(cls, data: bytes, path: str) -> MemberRecord:
        """Return what `pack` wrote; DataError when `data` is something else."""
        try:
            arrays, record = unpack_arrays(data)
            thresholds = {tuple(names): ThresholdState(*values) for names, values in record["thresholds"]}
            kept = record["updater"]
            tensors = _named("updater.", arrays)
            return cls(
                Carried(_named("residual.", arrays), thresholds, int(record["steps"])),
                None if kept is None else UpdaterState(tensors, tuple(kept["groups"]), kept["schedule"]),
                _named("buffer.", arrays),
                arrays["random"],
                {name: record["figures"][name] for name in _FIGURES},
            )
        except (WireError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is no member's state: {type(error).__name__}: {error}") from error


def _named(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


class Saver:
    """A member's part in checkpoints, or in there being none.

    Parameters
    ----------
    member : Member
    saving : Saving or None
    """

    def __init__(self, member: Member, saving: Saving | None) -> None:
        self._member, self._saving = member, saving
        self._cuts = None if saving is None else Cuts(saving.interval, saving.max_share, saving.began)
        self._stretch = WHOLE if self._cuts is None else self._cuts.first()

    def stretch(self, left: int) -> int:
        """Return the steps until the members meet, at most the `left` ones of the epoch."""
        return min(self._stretch, left)

    def plan(self, steps: int, epoch: int, ends: bool) -> tuple[bool, int]:
        """Return, on rank 0, whether a checkpoint is made now and the steps of the next stretch; see `Cuts.cut`."""
        if self._cuts is None or self._member.rank != 0:
            return False, WHOLE
        return self._cuts.cut(steps, epoch, ends)

    def saves(self, due: bool, last: bool) -> bool:
        """Say whether a checkpoint is made: one that is due, or the last one, of members that end."""
        return self._saving is not None and (due or last)

    def go_on(self, stretch: int, started: float, saved: bool) -> None:
        """Begin the next stretch, which rank 0 has said the length of."""
        self._stretch = stretch
        if self._cuts is not None:
            self._cuts.go_on(started, saved)

    def save(self, network: Network, replica: Replica, record: MemberRecord, cursor: Cursor, **values: Any) -> None:
        """Write this member's files and report them; what cannot be written is reported too.

        Parameters
        ----------
        cursor : Cursor
            With what is left to this member alone.
        values : figures
            What else the driver must know.
        """
        assert self._saving is not None
        step, rank = values["step"], self._member.rank
        try:
            files = self._write(network, replica, record, rank, step, cursor.epoch)
            found: dict[str, Any] = {"files": files}
        except OSError as error:
            found = {"error": f"member {rank} could not write to {self._saving.path}: {error}"}
        place = {"epoch": cursor.epoch, "cursor": cursor.to_dict()}
        self._member.report(Event("saved", rank, time.time(), values={**values, **place, **found}))

    def _write(
        self, network: Network, replica: Replica, record: MemberRecord, rank: int, step: int, epoch: int
    ) -> dict[str, Any]:
        assert self._saving is not None
        folder = CheckpointStore(self._saving.path).folder(step)
        contents = {member_file(rank, self._saving.token): record.pack()}
        if rank == 0:
            state = NetworkState(replica.flat.read(), record.buffers, record.updater, step)
            contents[MODEL] = pack(network, record.updater, state, epoch)
        for name, data in contents.items():
            write_whole(join(folder, name), data)
        return {name: digest(data) for name, data in contents.items()}


def read_records(checkpoint: Checkpoint, ranks: Sequence[int] | None = None) -> list[MemberRecord]:
    """Read members' states of a checkpoint, all of them in rank order by default."""
    names = checkpoint.state.get("members")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{checkpoint.path} does not list its members' files")
    wanted = names if ranks is None else [names[rank] for rank in ranks]
    return [MemberRecord.unpack(checkpoint.read(name), checkpoint.file(name)) for name in wanted]


def merge_records(
    records: Sequence[MemberRecord], combine: Literal["mean", "sum"]
) -> tuple[Carried, UpdaterState | None]:
    """Return what any number of members goes on from: what all of them together had left, and their optimizers' mean.

    Of those that had trained, as at a fit's end.
    """
    trained = [record.figures["rows"] + record.figures["epoch_rows"] for record in records]
    weights = [1.0 if rows else _IDLE for rows in trained]
    shares = [1.0] * len(records) if combine == "sum" else [weight / sum(weights) for weight in weights]
    residual = {
        name: np.sum(
            [share * one.carried.residual[name] for share, one in zip(shares, records, strict=True)],
            axis=0,
            dtype=np.float64,
        ).astype(array.dtype)
        for name, array in records[0].carried.residual.items()
    }
    thresholds = {
        names: mean_state([one.carried.thresholds[names] for one in records]) for names in records[0].carried.thresholds
    }
    nothing = np.empty(0, np.float32)
    terms = [
        Contribution(NetworkState(nothing, {}, one.updater), weight, Summary(), int(one.figures["iteration"]))
        for one, weight in zip(records, weights, strict=True)
    ]
    updater = None if records[0].updater is None else finish_round(add_up(terms)).state.updater
    return Carried(residual, thresholds, max(one.carried.iteration for one in records)), updater
