"""Shared training: every worker's update goes to all others, compressed, minibatch by minibatch."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationError, field_serializer, field_validator, model_validator

from strombus.compression import (
    AdaptiveThresholdAlgorithm,
    Compression,
    Encoder,
    ResidualClippingPostProcessor,
    ResidualPostProcessor,
    ThresholdAlgorithm,
    ThresholdEncoder,
    check_compressible,
    encoders,
    residual_post_processors,
    threshold_algorithms,
)
from strombus.data import Source
from strombus.documents import explain
from strombus.errors import ConfigurationError, MemberLost, StrombusWarning
from strombus.evaluation import Evaluation
from strombus.masters.base import TrainingMaster, make_named
from strombus.masters.dl4j_files import algorithm_type, from_dl4j
from strombus.masters.feeding import cells_for_members, feed_of
from strombus.masters.gang_watch import GangWatch
from strombus.masters.going_on import check_continue, outcome
from strombus.masters.job import Recovery, TrainingJob
from strombus.partitioning import Repartitioner
from strombus.runs import Checkpoint
from strombus.stats import Listening, Recorder
from strombus.transport import Seconds, Transport, TransportOptions, make_keys, transports
from strombus.types import Capacity, NetworkState
from strombus.worker.carrying import Carried
from strombus.worker.meeting import hub_beside
from strombus.worker.saving import merge_records, read_records
from strombus.worker.scoring import ScoringWork
from strombus.worker.sharing import share_training
from strombus.worker.sharing_work import MemberResult, SharingOptions, SharingWork

__all__ = ["SharedTrainingMaster"]

_VALIDATION_BATCH = 64


class SharedTrainingMaster(TrainingMaster):
    """Sharing of threshold-encoded updates, peer to peer (Strom 2015; DL4J: ``SharedTrainingMaster``).

    All workers train at the same time, each on its rows. What a worker's optimizer would add to the
    parameters goes into its residual; elements of the residual that have reached the threshold are sent
    to all workers as plus or minus the threshold and taken out of it. Nothing is dropped: what was
    not sent stays in the residual, also between epochs and fits.

    Parameters
    ----------
    threshold_algorithm : ThresholdAlgorithm or str
        How large the quantum is; `AdaptiveThresholdAlgorithm` by default.
    updates_threshold : float, optional
        Short for ``AdaptiveThresholdAlgorithm(initial_threshold=...)`` (DL4J: ``updatesThreshold``).
    threshold_scope : {"model", "tensor"}
        One threshold for the model, or one for each parameter tensor.
    residual_post_processor : ResidualPostProcessor or str
        What happens to residuals that grow; clipping to 5 thresholds every 5 steps by default.
    encoder : Encoder or str
        How an update is written; `ThresholdEncoder` by default, `DenseEncoder` for no compression.
    combine : {"mean", "sum"}
        "mean": the updates of a step weigh 1 together. "sum": each counts in full, as in DL4J, so that the learning
        rate must shrink with the number of workers.
    weighting : {"examples", "uniform"}
        How an update counts in the mean. "examples": with `max_staleness` 0 by what its minibatch's loss averages over
        (rows, unmasked terms or sample weights), so that a step of SGD is that of the joined minibatch; above it by its
        rows alone, since it is added before those of others are known. "uniform": each alike.
    max_staleness : int or None
        Steps that a worker may run ahead of the slowest; 0 is synchronous and repeatable, None unbounded.
    workers_per_node : int
        Workers on each host; -1 means one for each slot of the backend, which are also the most (a warning says so).
    transport : str or class
        Name of a transport, or a `Transport` of one's own that passes `strombus.testing.transport_suite`; "zeromq" is
        encrypted sockets between the workers.
    transport_options : TransportOptions
        Addresses, ports and deadlines.
    debug_longer_iterations : int
        Milliseconds that every minibatch takes longer, for trials (DL4J: ``debugLongerIterations``).
    encoding_debug_mode : bool
        Keep figures of each step's threshold, residual and density as events of the training statistics.
    timeout : float
        Seconds to wait for slots, for members to meet, for another member that says nothing, and for data where
        all members wait for theirs.
    step_timeout : float, optional
        Seconds to wait for another member's step, in an epoch's later steps. By default 20 times the longest step so
        far, at least 10 s and at most `timeout`; raise it where hooks or data pause for longer now and then.
    on_peer_lost : {"restart", "continue"}
        What happens when a member dies or hangs. "restart": a fit with a name goes on from its last checkpoint.
        "continue" (not at staleness 0, not on Spark): the others carry on without it until they meet the next time, at
        an epoch's end or a checkpoint; then as many as are there train the rows that are left. New workers join at an
        epoch's end.
    max_failures : int, optional
        Times that a fit goes on after members were lost; then it ends with the error. By default 0 with "restart" and 3
        with "continue".
    min_workers : int
        Fewest members that it goes on with; they are waited for up to `timeout` seconds. With "restart" it has as many
        as before where the engine starts the lost one again within seconds, else those left.
    **options
        See `TrainingMaster`. In the "Direct" approach each worker gets its rows from the engine once and keeps them in
        its memory for the whole fit; validation data that an engine holds is exported in either.
    """

    name: ClassVar[str] = "shared_training"
    arguments: ClassVar[tuple[str, ...]] = ("training_hooks", "updates_threshold")
    validates: ClassVar[bool] = True
    writes_checkpoints: ClassVar[bool] = True

    worker_prefetch_num_batches: int = Field(default=2, ge=0, alias="workerPrefetchBatches")
    threshold_algorithm: SerializeAsAny[ThresholdAlgorithm] = Field(default_factory=AdaptiveThresholdAlgorithm)
    threshold_scope: Literal["model", "tensor"] = "model"
    residual_post_processor: SerializeAsAny[ResidualPostProcessor] = Field(
        default_factory=ResidualClippingPostProcessor
    )
    encoder: SerializeAsAny[Encoder] = Field(default_factory=ThresholdEncoder)
    combine: Literal["mean", "sum"] = "mean"
    weighting: Literal["examples", "uniform"] = "examples"
    max_staleness: int | None = Field(default=4, ge=0)
    workers_per_node: int = Field(default=-1, ge=-1, alias="numWorkersPerNode")
    transport: str | type[Transport] = "zeromq"
    transport_options: TransportOptions = Field(default_factory=TransportOptions)
    debug_longer_iterations: int = Field(default=0, ge=0, le=3_600_000)
    encoding_debug_mode: bool = False
    timeout: Seconds = 120.0
    step_timeout: Seconds | None = None
    on_peer_lost: Literal["restart", "continue"] = "restart"
    max_failures: int | None = Field(default=None, ge=0)
    min_workers: int = Field(default=1, ge=1)

    def __init__(self, *, updates_threshold: float | None = None, **options: Any) -> None:
        if updates_threshold is not None:
            if "threshold_algorithm" in options or "thresholdAlgorithm" in options:
                raise ConfigurationError("give updates_threshold or threshold_algorithm, not both")
            options["threshold_algorithm"] = {"type": "adaptive", "initial_threshold": updates_threshold}
        super().__init__(**options)

    @field_validator("threshold_algorithm", "residual_post_processor", "encoder", mode="before")
    @classmethod
    def _read_typed(cls, value: Any, info: Any) -> Any:
        tables = {
            "threshold_algorithm": threshold_algorithms,
            "residual_post_processor": residual_post_processors,
            "encoder": encoders,
        }
        table = tables[info.field_name]
        if isinstance(value, str):
            return table[value]()
        if isinstance(value, dict):
            options = dict(value)
            kind = options.pop("type", None)
            if kind is None:
                kind, options = algorithm_type(info.field_name, options)
            return make_named(table, kind, options)
        return value

    @field_validator("transport", mode="before")
    @classmethod
    def _known_transport(cls, value: str | type[Transport]) -> str | type[Transport]:
        if isinstance(value, str) and value not in transports:
            raise ValueError(f"no transport is called {value!r}; known: {', '.join(transports)}")
        return value

    @field_serializer("transport", when_used="json")
    def _name_transport(self, value: str | type[Transport]) -> str:
        return value if isinstance(value, str) else value.name

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        try:
            self.compression()
        except ValidationError as error:
            raise ValueError(explain(error, "compression", {})) from None
        if self.on_peer_lost == "continue":
            check_continue(self.max_staleness, self.transport, self.transport_options.topology, self.on_nonfinite)
        if self.combine == "sum" and self.weighting == "uniform":
            raise ValueError("weighting='uniform' is of combine='mean'; with 'sum' each update counts in full")
        return self

    @field_validator("workers_per_node")
    @classmethod
    def _some_workers(cls, value: int) -> int:
        if value == 0:
            raise ValueError("wanted: -1 (one for each slot) or at least 1")
        return value

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> Self:
        """Build a master from `to_dict`'s form, or from DL4J's; an unknown property is an error."""
        return super().from_dict(from_dl4j(options) if isinstance(options, dict) else options)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values; ConfigurationError where `transport` is a class without a name."""
        given = self.transport
        if not isinstance(given, str) and (given.name not in transports or transports[given.name] is not given):
            raise ConfigurationError(
                f"transport={given.__name__} cannot be written, since no name leads back to it: add an entry point to "
                f"the group strombus.transports; known: {', '.join(transports)}"
            )
        self.transport_options.check_written()
        return super().to_dict()

    def count_workers(self, capacity: Capacity) -> int | None:
        """Return how many members train; see `workers_per_node`."""
        if self.workers is not None or self.workers_per_node < 1:
            return super().count_workers(capacity)
        wanted = self.workers_per_node * max(1, len(capacity.hosts))
        if capacity.slots is None or wanted <= capacity.slots:
            return wanted
        warnings.warn(
            f"workers_per_node={self.workers_per_node} asks for {wanted} workers, and the backend has {capacity.slots} "
            "slots: as many train; give the backend more, or fewer workers_per_node",
            StrombusWarning,
            stacklevel=2,
        )
        return capacity.slots

    def recovery(self) -> Recovery:
        """Return what is done when members are lost, or numbers not finite; see `max_failures` and `max_rollbacks`."""
        survives = self.on_peer_lost == "continue"
        most = self.max_failures if self.max_failures is not None else 3 if survives else 0
        return Recovery(most, self.min_workers, self.timeout, self._rollbacks(), survives)

    def compression(self) -> Compression:
        """Return how updates are compressed."""
        return Compression(
            threshold_algorithm=self.threshold_algorithm,
            threshold_scope=self.threshold_scope,
            residual_post_processor=self.residual_post_processor,
            encoder=self.encoder,
        )

    def train(self, job: TrainingJob) -> NetworkState:
        """Run the epochs of `job` in one gang; return the state after the last one, or where the members have left.

        Where none is left, an earlier attempt was lost after its last step: what its members have written is joined.
        """
        if not job.epochs and job.resumed is not None:
            job.carried, updater = merge_records(read_records(job.resumed), self.combine)
            return replace(job.network.state(), updater=updater)
        if self.on_peer_lost == "continue" and not isinstance(job.source, Source):
            raise ConfigurationError(
                "on_peer_lost='continue' needs rows that any member can read: wanted rdd_training_approach='Export', "
                "got 'Direct' and data in an engine's memory"
            )
        replica = job.network.replica("cpu")
        replica.check_gradients()
        check_compressible(replica.flat.vector)
        resumed, earlier = self._resumed(job)
        if earlier is not None:
            earlier.check(replica.flat)
        with ExitStack() as stack:
            with self._recorder(job).phase("split"):
                repartitioner = self.choose_repartitioner(job.source, job.workers)
                work = replace(self._work(job, repartitioner), carried=earlier, resumed=resumed)
                payloads: list[Any] = [None] * job.workers
                if not isinstance(job.source, Source):
                    cells = stack.enter_context(cells_for_members(self, job, job.source, repartitioner))
                    work, payloads = replace(work, cells=tuple(cells)), list(cells.values())
            beside = hub_beside(job.executor, len(payloads), work.keys, self.transport, work.options.transport_options)
            results, epoch = self._run(job, replace(work, hub=stack.enter_context(beside)), payloads)
        for rank, result in results.items():
            for hook, state in zip(self.training_hooks, getattr(result, "hooks", ()), strict=False):
                if state is not None:
                    hook.collect(rank, state)
        found, carried, job.left = outcome([one for _, one in sorted(results.items())], epoch, self.combine)
        if carried is not None:  # otherwise the members have left before the end
            job.carried = carried.after(earlier)
        return found or job.network.state()

    def _resumed(self, job: TrainingJob) -> tuple[Checkpoint | None, Carried | None]:
        """Return what the members go on from: each from its own state, or where they are others, from all states' sum.

        The network has the optimizer's state of rank 0 then, which gives way to the mean of all.
        """
        members = 0 if job.resumed is None else len(job.resumed.state.get("members", ()))
        if job.resumed is None or not members:  # the first checkpoint is of what the fit began with
            return None, job.carried
        if members == job.workers or not isinstance(job.source, Source):
            return job.resumed, None
        carried, updater = merge_records(read_records(job.resumed), self.combine)
        if updater is not None:
            job.network.restore_updater(updater)
        return None, carried

    def _recorder(self, job: TrainingJob) -> Recorder:
        return Recorder(self.collect_training_stats, stats=job.stats)

    def _run(
        self, job: TrainingJob, work: SharingWork, payloads: list[Any]
    ) -> tuple[dict[int, MemberResult | MemberLost], int]:
        """Return what the members hand in, by rank, and the epoch that has not ended.

        One may be missing that was lost when all was trained.
        """
        survive: dict[str, Any] = {"survive": True} if job.survives else {}
        watch = GangWatch(job, len(payloads), partial(self.count_there, job.executor) if survive else None)
        recorder = self._recorder(job)
        with recorder.phase("broadcast"):
            shared = job.executor.share(work)
        try:
            with recorder.phase("gang"):
                results = job.executor.gang(
                    share_training,
                    payloads,
                    shared,
                    timeout=self.timeout,
                    on_event=watch.on_event,
                    control=watch,
                    **survive,
                )
            if watch.left is not None and not watch.ended and not job.survives:
                raise watch.left
            return dict(enumerate(results)), watch.epoch
        except MemberLost as lost:
            # A checkpoint of the end has the mean of the members' optimizers; what one of them hands in, its own.
            handed_in = any(result.state is not None for result in lost.results.values())
            if not watch.ended or watch.end_is_saved or not handed_in:
                raise (watch.left or lost) from lost.__cause__
            job.losses.append(_loss(lost))
            return dict(lost.results), watch.epoch
        finally:
            shared.free()

    def _transport_options(self) -> TransportOptions:
        """Return the options with a slow reader given as long as a member that says nothing, where none is set."""
        options = self.transport_options
        if self.on_peer_lost == "continue" and options.topology == "auto":
            options = options.model_copy(update={"topology": "mesh"})
        if "send_timeout" in options.model_fields_set:
            return options
        return options.model_copy(update={"send_timeout": max(options.send_timeout, self.timeout)})

    def _work(self, job: TrainingJob, repartitioner: Repartitioner) -> SharingWork:
        network = job.network
        validation = None
        if job.validation is not None:
            metrics = (Evaluation(),) if network.classifies else ()
            validation = ScoringWork(network, job.validation, _VALIDATION_BATCH, metrics)
        return SharingWork(
            network,
            feed_of(self, job, repartitioner),
            repartitioner,
            range(job.first_epoch, job.first_epoch + job.epochs),
            SharingOptions(
                combine=self.combine,
                weighting=self.weighting,
                max_staleness=self.max_staleness,
                compression=self.compression(),
                transport=self.transport,
                transport_options=self._transport_options(),
                patience=self.timeout,
                step_patience=self.step_timeout,
                pause=self.debug_longer_iterations / 1000,
                debug=self.encoding_debug_mode,
                on_nonfinite=self.on_nonfinite,
            ),
            keys=make_keys(),
            validation=validation,
            validates_first=job.observer.validates(job.first_epoch),
            waits=job.waits,
            hands_over=job.hands_over,
            hooks=self.training_hooks,
            timed=self.collect_training_stats,
            saving=job.saving,
            left_out=job.left_out,
            survives=job.survives,
            listening=Listening.now(),
        )


def _loss(lost: MemberLost) -> str:
    """Say what was lost with a member when all had been trained."""
    return (
        f"{lost}; everything had been trained. What its hooks held is lost and, unless it had handed them in, its "
        "optimizer's state and what it had not yet sent"
    )
