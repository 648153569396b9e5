"""What a gang's members report, as an observer wants to hear it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from strombus.errors import MemberLost
from strombus.masters.job import Progress, SavedByMembers, TrainingJob
from strombus.networks.parcels import unpack_state
from strombus.runs import MODEL
from strombus.stats import TrainingStats
from strombus.types import Cursor, Event, WorkerReport
from strombus.worker.scoring import LossSum, merge_losses

__all__ = ["GangWatch"]


class GangWatch:
    """Turns the members' reports into rounds and epochs; tells members whether to go on.

    It is the gang's `Control`, and its `on_event`. Members reach an epoch's end at different times, and one
    may report of the next epoch before the driver has heard of the last one's end from another.

    Parameters
    ----------
    job : TrainingJob
    size : int
    room : callable, optional
        Where members go on without one that is lost, how many there could be now: they leave the gang after an epoch
        when others may join.

    Attributes
    ----------
    epoch : int
        The one that has not ended.
    end_is_saved : bool
        Whether what the members wrote last is a checkpoint of the end.
    left : MemberLost or None
        The first member that said that it must leave, since its engine takes its worker away.
    """

    def __init__(self, job: TrainingJob, size: int, room: Callable[[], int] | None = None) -> None:
        self._job, self._size, self._room = job, size, room
        self.epoch = job.first_epoch
        self._round = 0
        self._latest: dict[int, dict[str, Any]] = {}
        self._ended: dict[int, dict[str, Any]] = {}
        self._early: list[tuple[int, Event]] = []
        self._state = bytearray()
        self._state_is_whole = False
        self._words: list[Any] = []
        self._starved: set[int] = set()  # members that have waited for their data for too long
        self._parts: dict[int, dict[int, Mapping[str, Any]]] = {}
        self._stops = self._leaves = self._enough = False
        self.end_is_saved = False
        self.left: MemberLost | None = None

    @property
    def ended(self) -> bool:
        """Whether every member has trained all epochs, or those after which the observer had enough."""
        return self._enough or self.epoch == self._job.first_epoch + self._job.epochs

    def stopping(self) -> bool:
        """Say whether members should give up: they are told to stop by `commands`, and then end in order."""
        return False

    def commands(self) -> list[Any]:
        """Return what members are told: whether to go on after an epoch, to stop at once, or to leave in order."""
        if not self._leaves and self._job.observer.interrupted():
            self._leaves = True
            self._words.append({"leave": True})
        found, self._words = self._words, []
        return found

    def on_event(self, rank: int, event: Event) -> None:
        """Take in one report."""
        if event.name == "alive":
            return
        if event.name == "leaving":
            self.left = self.left or MemberLost(f"member {rank} left: {event.values['reason']}", rank)
        elif event.name == "starved":
            self._starved.add(rank)
            if len(self._starved) + event.values["lost"] >= self._size:
                self._words.append({"starved": True})
        elif event.name == "fed":
            self._starved.discard(rank)
        elif event.name == "said":
            self._job.relay.take(rank, event.host, event.values["said"])
        elif event.name == "timings":
            self._job.stats.merge(TrainingStats.unpack(event.payload, f"what member {rank} timed"))
        elif event.name not in ("progress", "epoch", "state", "saved"):
            self._job.stats.add([event])
        elif event.values["epoch"] != self.epoch:
            self._early.append((rank, event))
        elif event.name == "saved":
            self._save(rank, event.values)
        elif event.name == "state":
            self._state += event.payload
            self._state_is_whole = event.values["last"]
            self._end_epoch()
        else:
            self._take(rank, event)

    def _take(self, rank: int, event: Event) -> None:
        values = dict(event.values)
        self._latest[rank] = values
        if self._job.observer.on_round(self._progress(rank, values, event)) and not self._stops:
            self._stops = True
            self._words.append({"stop": True})
        if event.name == "epoch":
            self._ended[rank] = values
            self._end_epoch()

    def _progress(self, rank: int, values: dict[str, Any], event: Event) -> Progress:
        """Make a round of one member's report."""
        self._round += 1
        steps, length = values["minibatches"], values["length"]
        figures: dict[str, float] = {}
        if steps and length:
            figures = {
                "threshold": values["threshold"],
                "sent %": 100 * values["elements"] / (steps * length),
                "kB/step": values["sent"] / steps / 1000,
            }
        return Progress(
            self.epoch,
            self._round - 1,
            values["examples"],
            steps,
            max(latest["iteration"] for latest in self._latest.values()),
            self._score(),
            figures,
            (_report(rank, values, event),),
        )

    def _score(self) -> float:
        """Return the mean loss of the members' last minibatches, weighted by what each averaged over."""
        trained = [self._latest[rank] for rank in sorted(self._latest) if self._latest[rank]["count"]]
        count = sum(latest["count"] for latest in trained)
        return sum(latest["loss"] * latest["count"] for latest in trained) / count if count else float("nan")

    def _save(self, rank: int, values: Mapping[str, Any]) -> None:
        """Tell the observer of a checkpoint once every member has reported its part, well written or not."""
        parts = self._parts.setdefault(values["step"], {})
        parts[rank] = values
        if len(parts) == self._size:
            del self._parts[values["step"]]
            saved = _joined([parts[rank] for rank in range(self._size)])
            self._job.observer.on_saved(saved)
            end = self._job.first_epoch + self._job.epochs
            self.end_is_saved = saved.cursor.epoch == end and not saved.error

    def _end_epoch(self) -> None:
        """Tell the observer of an epoch that every member has ended, and whose state is here if it is waited for."""
        if len(self._ended) < self._size or not all(values["whole"] for values in self._ended.values()):
            return
        comes = self._job.waits or self._job.hands_over
        if comes and not self._state_is_whole:
            return
        epoch = self.epoch
        state = unpack_state(bytes(self._state)) if comes else None
        self._enough = stop = self._job.observer.on_epoch(epoch, state, self._validation(), self._seconds())
        if self._job.waits or self._room is not None:
            next_one = self._job.observer.validates(epoch + 1)
            word = {"epoch": epoch, "stop": bool(stop), "validate": next_one}
            grows, leaves = not stop and self._can_grow(), self._job.observer.interrupted()
            self._words.append({**word, "leave": leaves, "regroup": grows and not leaves})
        elif stop and not self._stops and not self._job.observer.interrupted():
            self._stops = True
            self._words.append({"stop": True})
        self.epoch, self._round = epoch + 1, 0
        self._ended, self._state, self._state_is_whole = {}, bytearray(), False
        early, self._early = self._early, []
        for rank, event in early:
            self.on_event(rank, event)

    def _can_grow(self) -> bool:
        last = self.epoch + 1 >= self._job.first_epoch + self._job.epochs
        return self._room is not None and not last and self._room() > self._size

    def _seconds(self) -> float:
        """Return what the epoch took the slowest member, by its own clock: reports come in bunches."""
        return max(float(values["seconds"]) for values in self._ended.values())

    def _validation(self) -> dict[str, float] | None:
        """Return the figures of all members' shares of the validation data, added up in rank order."""
        if self._job.validation is None:
            return None
        found = [self._ended[rank] for rank in sorted(self._ended) if "validation_loss" in self._ended[rank]]
        if not found:
            return {}
        shares = (values["validation_loss"] for values in found)
        sums = (LossSum(tuple(totals), tuple(counts), examples) for totals, counts, examples in shares)
        loss = reduce(merge_losses, sums, LossSum())
        figures = {"score": loss.mean + found[0]["penalty"] if any(loss.counts) else float("nan")}
        if evaluated := sum(values.get("evaluated", 0) for values in found):
            figures["accuracy"] = sum(values["right"] for values in found) / evaluated
        return figures


def _joined(parts: Sequence[Mapping[str, Any]]) -> SavedByMembers:
    """Return a checkpoint from what the members say of their parts, in rank order."""
    cursors = [Cursor.from_dict(part["cursor"]) for part in parts]
    left = tuple(spans for cursor in cursors for spans in cursor.left)
    names = [[name for name in part.get("files", {}) if name != MODEL] for part in parts]
    return SavedByMembers(
        parts[0]["step"],
        replace(cursors[0], left=left),
        sum(part["examples"] for part in parts),
        sum(part["minibatches"] for part in parts),
        {name: entry for part in parts for name, entry in part.get("files", {}).items()},
        tuple(name for listed in names for name in listed),
        {rank: part["skipped"] for rank, part in enumerate(parts) if part["skipped"]},
        "; ".join(part["error"] for part in parts if "error" in part),
    )


def _report(rank: int, values: dict[str, Any], event: Event) -> WorkerReport:
    steps, length = values["minibatches"], values["length"]
    figures = {"threshold": values["threshold"], "sent_bytes": values["sent"]}
    if steps and length:
        figures["sent_share"] = values["elements"] / (steps * length)
    figures |= {name: values[name] for name in ("skipped", "uncounted") if values[name]}
    return WorkerReport(
        rank, values["iteration"], values["examples"], steps, values["loss"], event.seconds, event.host, figures
    )
