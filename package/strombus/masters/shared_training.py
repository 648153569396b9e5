"""Shared training: every worker's update goes to all others, compressed, minibatch by minibatch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, field_serializer, field_validator

from strombus.compression import (
    AdaptiveThresholdAlgorithm,
    Compression,
    Encoder,
    ResidualClippingPostProcessor,
    ResidualPostProcessor,
    ThresholdAlgorithm,
    ThresholdEncoder,
    encoders,
    residual_post_processors,
    threshold_algorithms,
)
from strombus.data import Source
from strombus.errors import ConfigurationError
from strombus.evaluation import Evaluation
from strombus.masters.base import TrainingJob, TrainingMaster
from strombus.masters.feeding import feed_of
from strombus.masters.gang_watch import GangWatch
from strombus.transport import Transport, TransportOptions, make_keys, transports
from strombus.types import Capacity, NetworkState
from strombus.worker.scoring import ScoringWork
from strombus.worker.sharing import MemberResult, SharingOptions, SharingWork, share_training

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
        "mean": the updates of a step count by their examples and weigh 1 together. "sum": each counts in full, as
        in DL4J, so that the learning rate must shrink with the number of workers.
    max_staleness : int or None
        Steps that a worker may run ahead of the slowest; 0 is synchronous and repeatable, None unbounded.
    workers_per_node : int
        Workers on each host; -1 means one for each slot of the backend.
    on_nonfinite : {"raise", "skip"}
        Whether an update with NaN or infinite values ends the fit, or is left out and counted.
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
        Seconds to wait for slots, for members to meet, and for another member that says nothing.
    step_timeout : float, optional
        Seconds to wait for another member's step, in an epoch's later steps. By default 20 times the longest step so
        far, at least 10 s and at most `timeout`; raise it where hooks or data pause for longer now and then.
    **options
        See `TrainingMaster`. ``rdd_training_approach`` is always "Export" for what an engine holds in memory.
    """

    name: ClassVar[str] = "shared_training"
    validates: ClassVar[bool] = True
    trains_native: ClassVar[bool] = False

    worker_prefetch_num_batches: int = Field(default=2, ge=0, alias="workerPrefetchBatches")
    threshold_algorithm: SerializeAsAny[ThresholdAlgorithm] = Field(default_factory=AdaptiveThresholdAlgorithm)
    threshold_scope: Literal["model", "tensor"] = "model"
    residual_post_processor: SerializeAsAny[ResidualPostProcessor] = Field(
        default_factory=ResidualClippingPostProcessor
    )
    encoder: SerializeAsAny[Encoder] = Field(default_factory=ThresholdEncoder)
    combine: Literal["mean", "sum"] = "mean"
    max_staleness: int | None = Field(default=4, ge=0)
    workers_per_node: int = Field(default=-1, ge=-1, alias="numWorkersPerNode")
    on_nonfinite: Literal["raise", "skip"] = "raise"
    transport: str | type[Transport] = "zeromq"
    transport_options: TransportOptions = Field(default_factory=TransportOptions)
    debug_longer_iterations: int = Field(default=0, ge=0)
    encoding_debug_mode: bool = False
    timeout: float = Field(default=120.0, gt=0)
    step_timeout: float | None = Field(default=None, gt=0)

    def __init__(self, *, updates_threshold: float | None = None, **options: Any) -> None:
        if updates_threshold is not None:
            if "threshold_algorithm" in options or "thresholdAlgorithm" in options:
                raise ConfigurationError("give updates_threshold or threshold_algorithm, not both")
            options["threshold_algorithm"] = AdaptiveThresholdAlgorithm(initial_threshold=updates_threshold)
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
            return table[kind](**options) if kind is not None else _untyped(info.field_name, options)
        return value

    @field_validator("transport")
    @classmethod
    def _known_transport(cls, value: str | type[Transport]) -> str | type[Transport]:
        if isinstance(value, str) and value not in transports:
            raise ValueError(f"no transport is called {value!r}; known: {', '.join(transports)}")
        return value

    @field_serializer("transport", when_used="json")
    def _name_transport(self, value: str | type[Transport]) -> str:
        return value if isinstance(value, str) else value.name

    @field_validator("workers_per_node")
    @classmethod
    def _some_workers(cls, value: int) -> int:
        if value == 0:
            raise ValueError("workers_per_node must be -1 (one for each slot) or at least 1")
        return value

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> SharedTrainingMaster:
        """Build a master from `to_dict`'s form, or from DL4J's; an unknown property is an error."""
        return super().from_dict(_without_dl4j_internals(options) if isinstance(options, dict) else options)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values; ConfigurationError where `transport` is a class without a name."""
        given = self.transport
        if not isinstance(given, str) and (given.name not in transports or transports[given.name] is not given):
            raise ConfigurationError(
                f"transport={given.__name__} cannot be written, since no name leads back to it: add an entry point to "
                f"the group strombus.transports; known: {', '.join(transports)}"
            )
        return super().to_dict()

    def count_workers(self, capacity: Capacity) -> int | None:
        """Return how many members train; see `workers_per_node`."""
        if self.workers is not None or self.workers_per_node < 1:
            return super().count_workers(capacity)
        wanted = self.workers_per_node * max(1, len(capacity.hosts))
        return wanted if capacity.slots is None else min(wanted, capacity.slots)

    def train(self, job: TrainingJob) -> NetworkState:
        """Run the epochs of `job` in one gang; return the state after the last one."""
        if not isinstance(job.source, Source):
            raise ConfigurationError("shared training reads its rows from a dataset that every worker reaches")
        watch = GangWatch(job, job.workers)
        shared = job.executor.share(self._work(job))
        try:
            results: list[MemberResult] = job.executor.gang(
                share_training,
                [None] * job.workers,
                shared,
                timeout=self.timeout,
                on_event=watch.on_event,
                control=watch,
            )
        finally:
            shared.free()
        for rank, result in enumerate(results):
            job.stats.add(result.events)
            for hook, state in zip(self.training_hooks, result.hooks, strict=True):
                if state is not None:
                    hook.collect(rank, state)
        job.carried = results[0].carried
        assert results[0].state is not None
        return results[0].state

    def _work(self, job: TrainingJob) -> SharingWork:
        network = job.network
        repartitioner = self.choose_repartitioner(job.source, job.workers)
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
                max_staleness=self.max_staleness,
                compression=Compression(
                    threshold_algorithm=self.threshold_algorithm,
                    threshold_scope=self.threshold_scope,
                    residual_post_processor=self.residual_post_processor,
                    encoder=self.encoder,
                    on_nonfinite=self.on_nonfinite,
                ),
                transport=self.transport,
                transport_options=self.transport_options,
                patience=self.timeout,
                step_patience=self.step_timeout,
                pause=self.debug_longer_iterations / 1000,
                debug=self.encoding_debug_mode,
            ),
            keys=make_keys(),
            validation=validation,
            waits=job.waits,
            hooks=self.training_hooks,
            timed=self.collect_training_stats,
            carried=job.carried,
        )


_DL4J_PORT = 49876
"""Where DL4J listens when no port was set."""

# What DL4J writes of a master's inner state, and options without meaning here.
_INTERNALS = frozenset(
    {
        "isFirstRun",
        "lastExportedRDDId",
        "lastRDDExportPath",
        "listeners",
        "logMinibatchesPerWorker",
        "rng",
        "setupDone",
        "stats",
        "statsStorage",
        "trainingHooks",
        "trainingMasterUID",
        "workerPeriodicGCFrequency",
        "workerTogglePeriodicGC",
    }
)


def _without_dl4j_internals(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what means something here of a file that may be DL4J's."""
    if "voidConfiguration" not in options:
        return dict(options)
    kept = {name: value for name, value in options.items() if name not in _INTERNALS}
    void = kept.pop("voidConfiguration") or {}
    port = (void.get("portSupplier") or {}).get("port", 0)
    kept["transportOptions"] = {
        "ports": None if port in (0, _DL4J_PORT) else (port, port),
    }
    if not kept.get("batchSizePerWorker"):  # 0 is DL4J's "not set"
        kept.pop("batchSizePerWorker", None)
    if isinstance(kept.get("storageLevel"), dict):
        kept["storageLevel"] = _storage_level(kept["storageLevel"])
    return kept


def _storage_level(fields: Mapping[str, Any]) -> str:
    places = "_AND_".join(
        name for name, used in (("MEMORY", fields.get("_useMemory")), ("DISK", fields.get("_useDisk"))) if used
    )
    if places in ("MEMORY", "DISK"):
        places += "_ONLY"
    serialised = "" if fields.get("_deserialized") or places == "DISK_ONLY" else "_SER"
    copies = "_2" if fields.get("_replication", 1) == 2 else ""
    return f"{places}{serialised}{copies}" if places else "NONE"


def _untyped(name: str, options: dict[str, Any]) -> Any:
    """Build what DL4J writes without its type, which its options tell."""
    options = {key: value for key, value in options.items() if key not in ("lastSparsity", "lastThreshold")}
    if name == "residual_post_processor":
        return residual_post_processors["clipping" if options else "none"](**options)
    if name == "threshold_algorithm":
        kind = "fixed" if "threshold" in options else "target_sparsity" if "sparsityTarget" in options else "adaptive"
        return threshold_algorithms[kind](**options)
    raise ValueError("an encoder is written with its type, such as {type: dense}")
