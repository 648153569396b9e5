"""What the members of a gang are told before they train together, and what they hand in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from strombus.compression import Compression
from strombus.networks import Network
from strombus.partitioning import Repartitioner
from strombus.runs import Checkpoint, Saving
from strombus.stats import Listening
from strombus.transport import Hub, Keys, Transport, TransportOptions
from strombus.types import NetworkState, Partition
from strombus.worker.bench import Feed
from strombus.worker.carrying import Carried
from strombus.worker.guarding import OnNonfinite, Place
from strombus.worker.hooks import TrainingHook
from strombus.worker.regrouping import Departure
from strombus.worker.scoring import ScoringWork

__all__ = ["MemberResult", "SharingOptions", "SharingWork"]


@dataclass(frozen=True)
class SharingOptions:
    """How updates are made, exchanged and combined; see `SharedTrainingMaster`.

    Parameters
    ----------
    patience : float
        Seconds to wait for another member.
    step_patience : float or None
        Seconds to wait for another member's step once steps are measured; None: see `strombus.worker.mixing.Pace`.
    pause : float
        Seconds to sleep in each step, for trials with stragglers.
    debug : bool
        Whether each step's compression is reported.
    on_nonfinite : {"raise", "skip", "rollback"}
        See `strombus.worker.guarding.Guard`.
    """

    combine: Literal["mean", "sum"]
    weighting: Literal["examples", "uniform"]
    max_staleness: int | None
    compression: Compression
    transport: str | type[Transport]
    transport_options: TransportOptions
    patience: float
    step_patience: float | None = None
    pause: float = 0.0
    debug: bool = False
    on_nonfinite: OnNonfinite = "raise"


@dataclass(frozen=True)
class SharingWork:
    """What all members of a fit know; shared with them once.

    Parameters
    ----------
    network : Network
        With the state that the fit starts from.
    epochs : range
    keys : Keys or None
        What lets a member in; made for this fit.
    hub : Hub or None
        What the driver runs for a star of members.
    cells : tuple of Partition
        What each member trains where an engine holds the rows; empty otherwise.
    validation : ScoringWork or None
        What the members score after each epoch for which the driver wants it.
    validates_first : bool
        Whether it wants that for the first epoch; of others it says so before they begin.
    waits : bool
        Whether the driver sees each epoch's network and says whether to go on; otherwise every epoch is like the first.
    hands_over : bool
        Whether the driver sees each epoch's network, while the next epoch is trained.
    carried : Carried or None
        What an earlier fit has left.
    saving : Saving or None
        When and where the members write checkpoints.
    resumed : Checkpoint or None
        What each member goes on from: its own state in it.
    left_out : frozenset of tuple
        The places of minibatches that no member trains.
    survives : bool
        Whether the others go on when a member is lost, until they meet the next time; then they leave as they are. They
        wait for the driver's word after each epoch, so that none begins one that another will not.
    listening : Listening or None
        What of the members' logs the driver wants to have.
    """

    network: Network
    feed: Feed
    repartitioner: Repartitioner
    epochs: range
    options: SharingOptions
    keys: Keys | None = None
    cells: tuple[Partition, ...] = ()
    validation: ScoringWork | None = None
    validates_first: bool = True
    waits: bool = False
    hands_over: bool = False
    hooks: tuple[TrainingHook, ...] = ()
    timed: bool = False
    carried: Carried | None = None
    saving: Saving | None = None
    resumed: Checkpoint | None = None
    left_out: frozenset[Place] = frozenset()
    survives: bool = False
    listening: Listening | None = None
    hub: Hub | None = None


@dataclass(frozen=True)
class MemberResult:
    """What a member hands in.

    Parameters
    ----------
    state : NetworkState or None
        Of rank 0 the network's; of others their own copy of it, with their own optimizer's state, in case that rank 0
        is lost before its result is in. None where there is none to hand in.
    carried : Carried or None
        What is left for the next fit; None where the fit was stopped before its end.
    hooks : tuple
        What each hook's ``state()`` returned.
    departure : Departure or None
        Of a member that has left its gang, and of rank 1 where it stands in for a rank 0 that is lost with its result.
    """

    state: NetworkState | None
    carried: Carried | None
    hooks: tuple[Any, ...] = ()
    departure: Departure | None = None
