"""What a fit with a name writes, so that the same command goes on where it was cut off."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from strombus.callbacks import Callback, EpochRecord
from strombus.errors import ConfigurationError, DataError, RunError, StrombusError, StrombusWarning
from strombus.fitting.settings import differences
from strombus.masters.job import SavedByMembers
from strombus.networks import Network
from strombus.networks.saving import pack
from strombus.runs import CONFIG, MODEL, Checkpoint, CheckpointConfig, CheckpointStore, Draft, Run, Saving
from strombus.types import Cursor, NetworkState

__all__ = ["Keeper", "Snapshot", "layout_of", "read_counts", "read_record"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """How far a fit has come at a place where it can go on.

    Parameters
    ----------
    cursor : Cursor
    iteration : int
        The network's.
    examples, minibatches : int
        Trained of the epoch that `cursor` is in.
    trained : tuple of int
        Examples and minibatches of the whole fit.
    seconds : float
        That the fit has taken.
    records : tuple of EpochRecord
        The epochs that have ended.
    skipped : mapping of int to int
        Minibatches of the whole fit that each worker has left out.
    """

    cursor: Cursor
    iteration: int
    examples: int = 0
    minibatches: int = 0
    trained: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    records: tuple[EpochRecord, ...] = field(default=(), repr=False)
    skipped: Mapping[int, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a form for JSON."""
        values = {
            name: getattr(self, name)
            for name in ("iteration", "examples", "minibatches", "trained", "seconds", "skipped")
        }
        return {"cursor": self.cursor.to_dict(), **values, "records": [_written(asdict(one)) for one in self.records]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote; DataError when `values` is something else."""
        try:
            examples, minibatches = values["trained"]
            return cls(
                Cursor.from_dict(values["cursor"]),
                int(values["iteration"]),
                int(values["examples"]),
                int(values["minibatches"]),
                (int(examples), int(minibatches)),
                float(values["seconds"]),
                tuple(read_record(one) for one in values["records"]),
                read_counts(values.get("skipped", {})),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"a checkpoint's state is damaged: {type(error).__name__}: {error}") from None


def _written(value: Any) -> Any:
    """Return a form for JSON, which knows neither NaN nor infinity; ``float`` reads the text that stands for them."""
    if isinstance(value, Mapping):
        return {name: _written(item) for name, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_record(values: Mapping[str, Any]) -> EpochRecord:
    """Return the record of an epoch from its JSON form, in which null and ``"nan"`` stand for NaN."""
    counts = {name: int(values[name]) for name in ("epoch", "iteration", "examples", "minibatches")}
    figures = {name: _number(value) for name, value in values["validation"].items()}
    score, seconds, skipped = _number(values["score"]), float(values["seconds"]), int(values.get("skipped", 0))
    return EpochRecord(**counts, score=score, seconds=seconds, validation=figures, skipped=skipped)


def read_counts(values: Mapping[str, Any]) -> dict[int, int]:
    """Return counts by worker from their JSON form, whose keys are texts."""
    return {int(worker): int(count) for worker, count in values.items()}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


class Keeper:
    """Writes the checkpoints of one fit and finds the one to go on from; on the driver.

    Parameters
    ----------
    run : Run
    config : CheckpointConfig
    settings : mapping
        What the fit was asked to do, as ``config.json`` has it.
    accept_changes : bool
        Whether a run may go on with other settings than it began with.
    """

    def __init__(
        self, run: Run, config: CheckpointConfig, settings: Mapping[str, Any], accept_changes: bool = False
    ) -> None:
        self.run, self.config, self.settings = run, config, settings
        self.store = CheckpointStore(run.path)
        self.layout = ""
        self.latest: Snapshot | None = None  # what the latest checkpoint is of
        self._accepts = accept_changes
        self._callbacks: Sequence[Callback] = ()
        self.first_epoch = int(settings.get("first_epoch", 1))  # the run's, counted from 1
        self._best: dict[int, float] = {}
        self._steps = 0
        self._written_at = time.monotonic()
        self._not_before = 0.0

    # -- the start

    def agree(self, facts: Mapping[str, Any]) -> int:
        """Write ``config.json``, or compare with the one that is there; return the seed that the run began with.

        Parameters
        ----------
        facts : mapping
            ``seed``, the one to begin with, and what else was found out since the settings were known.

        Raises
        ------
        RunError
            When the run was begun with other settings; says which.
        """
        settings = {"name": self.run.name, **self.settings, **facts}
        before = self.run.read(CONFIG)
        if before is None:
            self.run.write(CONFIG, settings)
            return int(facts["seed"])
        first, now = before.get("first_epoch"), self.first_epoch
        if type(first) is int and first <= now <= first + settings["epochs"] and self.store.steps():
            self.first_epoch = settings["first_epoch"] = first  # a network that was trained in this run before
        found = differences(before, settings)
        if found and not self._accepts:
            raise RunError(
                f"the run {self.run.name!r} in {self.run.path} was begun with other settings ({'; '.join(found)}); "
                "take another name, or go on with accept_changes=True"
            )
        seed = before.get("seed")
        if found:
            warnings.warn(
                f"the run {self.run.name!r} goes on with {'; '.join(found)}; its seed stays {seed}",
                StrombusWarning,
                stacklevel=2,
            )
            self.run.write(CONFIG, {**settings, "seed": seed})
        return seed if type(seed) is int and seed >= 0 else int(facts["seed"])

    def find(
        self, network: Network, callbacks: Sequence[Callback], layout: str, workers: int | None
    ) -> tuple[Checkpoint, Snapshot] | None:
        """Bring network and callbacks to the latest checkpoint that can be gone on from; None where there is none.

        Those that come after it are removed: what they hold was trained, and lost.

        Parameters
        ----------
        layout : str
            How the rows lie and are dealt: within an epoch one goes on only with the same.
        workers : int or None
            Where an engine holds the rows, the number with which one goes on within an epoch.

        Raises
        ------
        RunError
            When there are whole checkpoints, and none of them can be gone on from.
        """
        self.layout, self._callbacks, self._steps = layout, callbacks, network.iteration
        chosen = self._choose(workers)
        for step in self.store.steps():
            if chosen is None or step > chosen[0].step:
                self.store.remove(step)
        if chosen is None:
            if network.epoch + 1 != self.first_epoch:
                raise RunError(
                    f"no checkpoint in {self.run.path} is whole, and the network has trained {network.epoch} epochs, "
                    f"{self.first_epoch - 1} when the run began; give a new one, or take another name"
                )
            return None
        self._take_up(network, *chosen)
        return chosen

    def _choose(self, workers: int | None) -> tuple[Checkpoint, Snapshot] | None:
        unfit = []
        for checkpoint in self.store.whole():
            try:
                snapshot = Snapshot.from_dict(checkpoint.state)
            except DataError as error:
                logger.warning("the checkpoint of step %d is passed over: %s", checkpoint.step, error)
                continue
            reason = _unfit(checkpoint.state, snapshot.cursor, self.layout, workers)
            if reason is None:
                return checkpoint, snapshot
            logger.warning("the checkpoint of step %d is passed over: %s", checkpoint.step, reason)
            unfit.append(f"that of step {checkpoint.step}: {reason}")
        if unfit:
            raise RunError(
                f"the run {self.run.name!r} in {self.run.path} can go on from none of its checkpoints ({unfit[0]}); "
                "give data, workers and options as before, or take another name"
            )
        return None

    def _take_up(self, network: Network, checkpoint: Checkpoint, snapshot: Snapshot) -> None:
        network.load(checkpoint.file(MODEL))
        left = list(checkpoint.state.get("callbacks", []))
        for callback in self._callbacks:  # in their order where there are several of a class
            kept = next((one for one in left if one["class"] == type(callback).__name__), None)
            if kept is not None:
                left.remove(kept)
                if kept["state"]:
                    callback.load_state(kept["state"])
        for one in left:
            if one["state"]:
                logger.warning("the fit goes on without a callback that it had: %s", one["class"])
        self._steps, self.latest = snapshot.iteration, snapshot
        for record in snapshot.records:
            self._note_best(record.iteration, record)
        logger.info("going on from %s, epoch %d", checkpoint.path, snapshot.cursor.epoch + 1)

    def saving(self, began: int) -> Saving:
        """Return what workers that write checkpoints must know; `began` is the fit's first epoch."""
        return Saving(self.run.path, secrets.token_hex(4), self.config.interval, self.config.max_share, began)

    # -- what is due

    def is_due(self, iteration: int) -> bool:
        """Say whether a checkpoint should be made within an epoch."""
        interval, now = self.config.interval, time.monotonic()
        if interval.unit == "epochs" or now < self._not_before:
            return False
        passed = iteration - self._steps if interval.unit == "steps" else now - self._written_at
        return passed >= interval.count

    def epoch_is_due(self, epochs: int, iteration: int, record: EpochRecord | None = None) -> bool:
        """Say whether a checkpoint should be made after the fit's `epochs`-th epoch; the best one is in any case."""
        if record is not None and self._is_best(record):
            return True
        if self.config.interval.unit == "epochs":
            return epochs % self.config.interval.count == 0
        return self.is_due(iteration)

    # -- writing

    def write(self, network: Network, state: NetworkState, snapshot: Snapshot) -> None:
        """Write a checkpoint of `state`; `network` has what else belongs into its file.

        Raises
        ------
        RunError
            When it cannot be written and the configuration says that this ends the fit.
        """
        with self._draft(snapshot.iteration) as draft:
            epoch = snapshot.cursor.epoch
            try:
                data = pack(network, state.updater, state, epoch)
            except ConfigurationError as error:
                logger.warning("checkpoints are without the optimizer's state: %s", error)
                data = pack(network, None, state, epoch)
            draft.write(MODEL, data)
            self._finish(draft, snapshot)

    def complete(self, snapshot: Snapshot, saved: SavedByMembers) -> None:
        """Make a checkpoint of what the workers have written; see `write`."""
        with self._draft(saved.step) as draft:
            if saved.error:
                raise OSError(saved.error)
            for name, entry in saved.files.items():
                draft.add(name, entry)
            self._finish(draft, snapshot, members=list(saved.members))

    def _finish(self, draft: Draft, snapshot: Snapshot, **more: Any) -> None:
        states = [{"class": type(one).__name__, "state": one.state()} for one in self._callbacks]
        record = {**snapshot.to_dict(), "layout": self.layout, "callbacks": _plain(states), **more}
        draft.finish(record)
        if snapshot.records and not snapshot.cursor.within:
            self._note_best(snapshot.iteration, snapshot.records[-1])
        self._steps, self._written_at = snapshot.iteration, time.monotonic()
        self.latest = snapshot

    @contextmanager
    def _draft(self, step: int) -> Iterator[Draft]:
        self.run.check()
        started = time.monotonic()
        with self.tolerant(f"the checkpoint of step {step}"):
            try:
                yield self.store.begin(step)
            except OSError:
                with suppress(OSError):
                    self.store.remove(step)
                raise
        self._prune()
        now = time.monotonic()
        self._not_before = now + (now - started) * (1 / self.config.max_share - 1)

    @contextmanager
    def tolerant(self, what: str) -> Iterator[None]:
        """Turn an error of the storage into a warning, or into a RunError where the configuration says so."""
        try:
            yield
        except OSError as error:
            if isinstance(error, StrombusError):
                raise
            message = f"{what} could not be written to {self.run.path}: {error}"
            if self.config.on_error == "raise":
                raise RunError(f"{message}; make room there, and run the same command again to go on") from error
            warnings.warn(f"{message}; the fit goes on without it", StrombusWarning, stacklevel=5)

    def _note_best(self, step: int, record: EpochRecord) -> None:
        value = self._goodness(record)
        if not math.isnan(value):
            self._best[step] = value

    def _is_best(self, record: EpochRecord) -> bool:
        value = self._goodness(record)
        return not math.isnan(value) and value > max(self._best.values(), default=-math.inf)

    def _goodness(self, record: EpochRecord) -> float:
        """Return what grows with what `best` names; NaN where nothing is to be the best."""
        value = math.nan if self.config.best is None else record.validation.get(self.config.best, math.nan)
        return value if self.config.best == "accuracy" else -value

    def _prune(self) -> None:
        """Remove the checkpoints that are too many, if that can be done."""
        try:
            steps = self.store.steps()
            there = [step for step in steps if step in self._best]
            kept = {*steps[-self.config.keep :], *([max(there, key=lambda step: self._best[step])] if there else [])}
            for step in steps:
                if step not in kept:
                    self.store.remove(step)
        except OSError as error:
            logger.warning("an old checkpoint could not be removed from %s: %s", self.run.path, error)


def _unfit(state: Mapping[str, Any], cursor: Cursor, layout: str, workers: int | None) -> str | None:
    """Return why training cannot go on from a place; None when it can."""
    if not cursor.within:
        return None
    if state.get("layout") != layout:
        return "it lies within an epoch, and the rows lie otherwise than they did, or are dealt otherwise"
    if workers is not None and cursor.workers != workers:
        return (
            f"it lies within an epoch of data in an engine's memory, dealt to {cursor.workers} workers, not {workers}"
        )
    return None


def _plain(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Check that callbacks' states can be written; ConfigurationError names the one that cannot."""
    for one in states:
        try:
            json.dumps(one["state"], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{one['class']}.state() must return what JSON has (numbers, texts, lists, mappings): {error}"
            ) from None
    return states


def layout_of(rows: Sequence[Any], *dealing: Any) -> str:
    """Return a mark of how rows lie (blocks, or the counts of an engine's partitions) and of how they are dealt."""
    return hashlib.sha256(repr([list(rows), *dealing]).encode()).hexdigest()[:16]
