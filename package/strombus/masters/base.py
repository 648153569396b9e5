"""What both training masters share: options, hooks, JSON and YAML."""

from __future__ import annotations

import inspect
import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SerializeAsAny, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from strombus.data import NativeCollection, Source
from strombus.documents import DocumentError, explain, parse_json, parse_yaml, shorten
from strombus.errors import ConfigurationError, StrombusWarning, hide_credentials
from strombus.executors.base import Executor
from strombus.masters.job import Recovery, TrainingJob
from strombus.masters.telling import owner_of
from strombus.partitioning import (
    DefaultRepartitioner,
    EqualRepartitioner,
    NoOpRepartitioner,
    Repartitioner,
    repartitioners,
)
from strombus.registry import Registry
from strombus.types import Capacity, NetworkState
from strombus.worker.guarding import OnNonfinite
from strombus.worker.hooks import TrainingHook

__all__ = ["TrainingMaster", "make_named"]

LONGEST = 1 << 18
"""Characters of a master as JSON or YAML; with all options written out it has about 2 000."""

STORAGE_LEVELS = (
    "NONE",
    "DISK_ONLY",
    "DISK_ONLY_2",
    "MEMORY_ONLY",
    "MEMORY_ONLY_2",
    "MEMORY_ONLY_SER",
    "MEMORY_ONLY_SER_2",
    "MEMORY_AND_DISK",
    "MEMORY_AND_DISK_2",
    "MEMORY_AND_DISK_SER",
    "MEMORY_AND_DISK_SER_2",
    "OFF_HEAP",
)

# Written by DL4J, without meaning here: read when null, so that a file of DL4J's loads.
_NULL_ONLY = frozenset({"broadcastHadoopConfig", "statsStorage", "trainingHookList"})

# The JVM's garbage collector.
_INERT = frozenset({"workerPeriodicGCFrequency", "workerTogglePeriodicGC"})


def make_named(table: Registry, name: str, options: Mapping[str, Any]) -> Any:
    """Make what `table` knows by `name`; ValueError says in one line what is wrong with its options."""
    if not isinstance(name, str):
        raise ValueError(f"type must be a name, got {shorten(name)}; known: {', '.join(table)}")
    kind = table[name]
    try:
        return kind(**options)
    except ValidationError as error:
        raise ValueError(explain(error, kind.__name__, {name: name for name in sorted(kind.model_fields)})) from None


class TrainingMaster(BaseModel, ABC):
    """How a network is trained on many workers: frozen options, and the algorithm on the driver.

    Options carry DL4J's names in snake_case; JSON and YAML carry DL4J's property names.

    Parameters
    ----------
    workers : int, optional
        Workers that train at the same time; by default as many as the backend has slots
        (DL4J: ``numWorkers``).
    batch_size_per_worker : int
        Rows of a minibatch on one worker.
    worker_prefetch_num_batches : int
        Above 0 a thread on each worker reads ahead, and keeps this number of minibatches ready where there is a
        transform (2; DL4J's default is 0, which reads in the training thread).
    rdd_data_set_num_examples : int, optional
        Rows that each object of a Bag or RDD is said to hold. Sizes are measured, not taken from here:
        where the first partition's objects are more than twice or less than half as large, a warning says so.
    repartition_data : {"Always", "Never", "NumPartitionsWorkersDiffers"}
        When the parts of the data are cut anew (DL4J: ``repartition``).
    repartition_strategy : {"Balanced", "ApproximateBalanced", "SparkDefault"}
        How: the first two are `EqualRepartitioner`, the third `DefaultRepartitioner`.
    repartitioner : Repartitioner, optional
        Stands above the two options before it.
    rdd_training_approach : {"Export", "Direct"}
        "Export": data that is not yet in Zarr is written to `export_directory` first and removed at
        the end; "Direct": it is trained from the engine's memory.
    export_directory : path or URI, optional
        Where; every worker must reach it. By default the run directory of a fit with a name, otherwise a temporary
        directory of this machine.
    storage_level : str
        Which cache of the engine holds an RDD in the Direct approach; nothing stays cached after the fit.
    storage_level_streams : str
        Read and written for DL4J's files; lists of paths are small here and never cached.
    rng_seed : int, optional
        Governs everything random: order, dropout, odd rows. Drawn anew for each fit when None.
    shuffle : bool
        Whether each epoch has an order of its own.
    last_batch : {"balance", "keep"}
        Whether a last minibatch of one row shares with its neighbour.
    default_evaluation_workers : int
        Model copies that score, evaluate or predict at the same time in one process, at most; they share the
        parameters (DL4J: ``setDefaultEvaluationWorkers``, 4 as well).
    collect_training_stats : bool
        Time each phase on driver and workers.
    on_nonfinite : {"raise", "skip", "rollback"}
        What becomes of a minibatch whose loss, gradient or update is NaN or infinite. "raise": it ends the fit, named.
        "skip": it is left out and counted, without a trace in the optimizer or the module's buffers. "rollback": a fit
        with a name goes back to its last checkpoint, and trains the same again without that minibatch.
    max_rollbacks : int
        Times that it goes back, before the error ends it.
    training_hooks : sequence of TrainingHook
        Called on the workers around each update; see `add_hook`.

    Raises
    ------
    ConfigurationError
        For a value that cannot work, naming option and value.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )

    name: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]] = ("training_hooks",)
    """What is given like an option and is none of the fields."""
    validates: ClassVar[bool] = False
    """Whether the workers score the validation data themselves, since they are busy for the whole fit."""
    writes_checkpoints: ClassVar[bool] = False
    """Whether the workers write checkpoints, since each has a state of its own."""

    workers: int | None = Field(default=None, ge=1, alias="numWorkers")
    batch_size_per_worker: int = Field(default=16, ge=1)
    worker_prefetch_num_batches: int = Field(default=2, ge=0, alias="prefetchNumBatches")
    rdd_data_set_num_examples: int | None = Field(default=None, ge=1)
    repartition_data: Literal["Always", "Never", "NumPartitionsWorkersDiffers"] = Field(
        default="Always", alias="repartition"
    )
    repartition_strategy: Literal["Balanced", "ApproximateBalanced", "SparkDefault"] = "Balanced"
    repartitioner: SerializeAsAny[Repartitioner] | None = None
    rdd_training_approach: Literal["Export", "Direct"] = "Export"
    export_directory: str | None = None
    storage_level: str | None = "MEMORY_ONLY_SER"
    storage_level_streams: str | None = "MEMORY_ONLY"
    rng_seed: int | None = Field(default=None, ge=0)
    shuffle: bool = True
    last_batch: Literal["balance", "keep"] = "balance"
    default_evaluation_workers: int = Field(default=4, ge=1)
    collect_training_stats: bool = False
    on_nonfinite: OnNonfinite = "raise"
    max_rollbacks: int = Field(default=10, ge=1)

    _hooks: list[TrainingHook] = PrivateAttr(default_factory=list)

    def __init__(self, *, training_hooks: Any = (), **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise ConfigurationError(self._explain(error)) from None
        for hook in training_hooks:
            self.add_hook(hook)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        # help() shows the names that people write, where pydantic would show the aliases of JSON.
        hooks = inspect.Parameter("training_hooks", inspect.Parameter.KEYWORD_ONLY, default=())
        named = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=field.get_default(), annotation=field.annotation
            )
            for name, field in cls.model_fields.items()
        ]
        cls.__signature__ = inspect.Signature([*named, hooks])

    @classmethod
    def _explain(cls, error: ValidationError) -> str:
        names = [*sorted(cls.model_fields), *cls.arguments]
        aliases = {field.alias: name for name, field in cls.model_fields.items() if field.alias}
        return explain(error, cls.__name__, {name: name for name in names} | aliases)

    @field_validator("storage_level", "storage_level_streams")
    @classmethod
    def _known_level(cls, value: str | None) -> str | None:
        if value is None or value == "null":
            return None
        if value not in STORAGE_LEVELS:
            raise ValueError(f"unknown storage level; known: {', '.join(STORAGE_LEVELS)}")
        return value

    @field_validator("export_directory", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @field_validator("repartitioner", mode="before")
    @classmethod
    def _read_repartitioner(cls, value: Any) -> Any:
        if isinstance(value, str):
            return repartitioners[value]()
        if isinstance(value, dict):
            options = dict(value)
            if not options:
                raise ValueError("DL4J writes its equal and its no-op repartitioner alike: say 'equal' or 'none'")
            # DL4J writes no type; only its default repartitioner has an option.
            return make_named(repartitioners, options.pop("type", "default"), options)
        return value

    # -- hooks -----------------------------------------------------------------------------------

    @property
    def training_hooks(self) -> tuple[TrainingHook, ...]:
        """The hooks, in the order in which workers call them."""
        return tuple(self._hooks)

    def add_hook(self, hook: TrainingHook) -> None:
        """Have workers call `hook` around each update (DL4J: ``addHook``)."""
        if not isinstance(hook, TrainingHook):
            raise ConfigurationError(f"a training hook must be a strombus.TrainingHook, got {type(hook).__name__}")
        self._hooks.append(hook)

    def remove_hook(self, hook: TrainingHook) -> None:
        """Take `hook` away again (DL4J: ``removeHook``); ConfigurationError when it is not there."""
        if hook not in self._hooks:
            raise ConfigurationError(f"{hook!r} is not among the hooks of this master")
        self._hooks.remove(hook)

    # -- changes

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            kind = type(self).__name__
            raise ConfigurationError(
                f"a {kind} is frozen, since a fit may be using it: take a copy, "
                f"other = master.with_options({name}=...), or make a new {kind}"
            )
        super().__setattr__(name, value)

    def with_options(self, **options: Any) -> Self:
        """Return a copy with these options changed, checked as those of a new one are; the hooks are the same."""
        return type(self)(**{**dict(self), "training_hooks": self.training_hooks, **options})

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, hide_credentials(value) if isinstance(value, str) else value

    # -- text forms ------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the options under DL4J's property names, as plain values."""
        if self._hooks:
            warnings.warn("training hooks are code and are not written; add them again", StrombusWarning, stacklevel=2)
        options = self.model_dump(mode="json", by_alias=True)
        for name, field_ in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, BaseModel) and hasattr(value, "name"):
                options[field_.alias or to_camel(name)]["type"] = value.name
        return dict(sorted(options.items()))

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> Self:
        """Build a master from `to_dict`'s form; an unknown property is an error that lists the known ones."""
        if not isinstance(options, dict):
            raise ConfigurationError(f"a {cls.__name__} is written as a mapping, got {type(options).__name__}")
        if inert := sorted(name for name in _INERT if options.get(name) is not None):
            warnings.warn(f"DL4J's {', '.join(inert)} have no effect here", StrombusWarning, stacklevel=3)
        known = {key: value for key, value in options.items() if key not in _INERT}
        try:
            return cls(**{key: value for key, value in known.items() if not (key in _NULL_ONLY and value is None)})
        except ConfigurationError as error:
            if (told := owner_of(known, cls)) is None:
                raise
            kind, names = told[0].__name__, ", ".join(told[1])
            raise ConfigurationError(
                f"{kind} has {names}, {cls.__name__} has not: read it as a {kind}, or leave that out; {error}"
            ) from error

    def to_json(self) -> str:
        """Return the options as JSON (DL4J: ``toJson``)."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Build a master from JSON (DL4J: ``fromJson``); ConfigurationError when it is none."""
        try:
            options = parse_json(text, LONGEST)
        except DocumentError as error:
            raise ConfigurationError(f"not JSON as a {cls.__name__} is written: {error}") from None
        return cls.from_dict(options)

    def to_yaml(self) -> str:
        """Return the options as YAML (DL4J: ``toYaml``)."""
        return yaml.safe_dump(self.to_dict(), sort_keys=True)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Build a master from YAML (DL4J: ``fromYaml``); ConfigurationError when it is none."""
        try:
            options = parse_yaml(text, LONGEST)
        except DocumentError as error:
            raise ConfigurationError(f"not YAML as a {cls.__name__} is written: {error}") from None
        return cls.from_dict(options)

    # -- training --------------------------------------------------------------------------------

    def choose_repartitioner(self, source: Source | NativeCollection, workers: int) -> Repartitioner:
        """Return the repartitioner that the options name for `source`."""
        if self.repartitioner is not None:
            return self.repartitioner
        parts = len(source.part_rows if isinstance(source, Source) else source.partitions())
        fits = self.repartition_data == "NumPartitionsWorkersDiffers" and parts == workers
        if self.repartition_data == "Never" or fits:
            return NoOpRepartitioner()
        return DefaultRepartitioner() if self.repartition_strategy == "SparkDefault" else EqualRepartitioner()

    def count_workers(self, capacity: Capacity) -> int | None:
        """Return how many workers train on a backend of this capacity; None where neither side says."""
        return self.workers or capacity.slots

    def count_there(self, executor: Executor) -> int:
        """Return how many of the workers that train are there at the moment."""
        capacity = executor.capacity()
        wanted = self.count_workers(capacity) or 1
        return wanted if capacity.slots is None else min(wanted, capacity.slots)

    def recovery(self) -> Recovery:
        """Return what is done after a failure; of lost workers nothing, where the engine runs their tasks again."""
        return Recovery(max_rollbacks=self._rollbacks())

    def _rollbacks(self) -> int:
        return self.max_rollbacks if self.on_nonfinite == "rollback" else 0

    @abstractmethod
    def train(self, job: TrainingJob) -> NetworkState:
        """Train `job.network` and return its final state; the network itself is left as it was."""
