"""A training job written as YAML: network by import path, master, data, backend."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from strombus.data import open_dataset, table
from strombus.documents import DocumentError, parse_json, parse_yaml, shorten
from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import (
    BaseEvaluation,
    Evaluation,
    EvaluationBinary,
    EvaluationCalibration,
    RegressionEvaluation,
    ROCMultiClass,
    evaluations,
)
from strombus.files import read_start, read_whole
from strombus.importing import load_dl4j
from strombus.masters import masters
from strombus.masters.base import TrainingMaster
from strombus.masters.telling import owner_of
from strombus.networks import ComputationGraph, MultiLayerNetwork, Network
from strombus.networks.dl4j import save_dl4j
from strombus.networks.losses import Loss
from strombus.normalizers import Normalizer
from strombus.normalizing import load_normalizer
from strombus.registry import import_object
from strombus.runs import CheckpointConfig

__all__ = ["ColumnOptions", "DataOptions", "ImportedOptions", "Job", "NetworkOptions", "import_object", "read_job"]

LONGEST = 1 << 20
"""Bytes of a job's file."""

_STEPS = 200
"""Thresholds of ROC curves, which then need the same memory whatever the data."""


_NETWORK_ARGUMENTS = {"l1", "l2", "device", "autocast", "accumulate", "clip_grad_norm", "clip_grad_value"}


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkOptions(_Options):
    """What the network is made of.

    Parameters
    ----------
    module : str
        Import path, ``"package.module:name"``, of an ``nn.Module``, a class or a function that makes one.
    loss : str, mapping or list
        Import path; a class is called without arguments (``torch.nn:CrossEntropyLoss``). As a mapping,
        ``class`` is the path and all else its options; a list has one for each output of a graph.
    optimizer : mapping
        ``class`` is the import path, all else its options: ``{class: "torch.optim:SGD", lr: 0.1}``.
    schedule : mapping, optional
        The same for a learning-rate schedule.
    kind : {"MultiLayerNetwork", "ComputationGraph"}
    normalizer : mapping, optional
        ``type`` is its name (``standardize``), all else its options; it is fitted to ``data.train``. ``file`` alone is
        the path of one to load.
    training_step : str, optional
        Import path of a function of module and minibatch that gives the loss.
    l1, l2, device, autocast, accumulate, clip_grad_norm, clip_grad_value, loss_weights
        See `strombus.networks.Network` and `ComputationGraph`.
    """

    module: str
    loss: str | dict[str, Any] | list[str | dict[str, Any]] = "torch.nn:CrossEntropyLoss"
    optimizer: dict[str, Any]
    schedule: dict[str, Any] | None = None
    kind: Literal["MultiLayerNetwork", "ComputationGraph"] = "MultiLayerNetwork"
    l1: float = 0.0
    l2: float = 0.0
    device: str = "auto"
    autocast: str | None = None
    accumulate: int = 1
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    loss_weights: list[float] | None = None
    training_step: str | None = None
    normalizer: dict[str, Any] | None = None


class ImportedOptions(_Options):
    """A network that Deeplearning4j wrote.

    Parameters
    ----------
    dl4j : str
        What `strombus.load_dl4j` reads.
    optimizer, schedule, device, autocast, accumulate, normalizer
        See `NetworkOptions`; without a normalizer here the one in the zip is kept.
    """

    dl4j: str
    optimizer: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None
    device: str = "auto"
    autocast: str | None = None
    accumulate: int = 1
    normalizer: dict[str, Any] | None = None


def _kind_of(network: Any) -> str:
    imported = "dl4j" in network if isinstance(network, dict) else isinstance(network, ImportedOptions)
    return "imported" if imported else "made"


_Made = Annotated[NetworkOptions, Tag("made")]
_Imported = Annotated[ImportedOptions, Tag("imported")]


class ColumnOptions(_Options):
    """Columns of Parquet files; see `strombus.data.table`."""

    features: str | list[str]
    label: str | list[str] | None = None
    weight: str | None = None
    key: str | None = None
    dtype: str | None = None


class DataOptions(_Options):
    """Where the data lies: paths or URIs of datasets, the import path of a transform, the columns of Parquet files."""

    train: str | list[str]
    validation: str | list[str] | None = None
    test: str | list[str] | None = None
    transform: str | None = None
    columns: ColumnOptions | None = None

    def open(self, path: str | list[str]) -> Any:
        """Open one of the paths."""
        transform = None if self.transform is None else import_object(self.transform)
        if self.columns is None:
            return open_dataset(path, transform=transform)
        return table(path, **self.columns.model_dump(), transform=transform)


class Job(_Options):
    """A whole job.

    Parameters
    ----------
    network : NetworkOptions or ImportedOptions
    data : DataOptions
    master : mapping or str
        ``type`` is the master's name (``parameter_averaging``), all else its options; or the path of a file that holds
        them, such as DL4J's ``toJson`` or ``toYaml`` wrote.
    backend : str
        ``local``, ``dask``, ``spark``, ``auto`` or a scheduler's address.
    epochs : int
    steps_per_epoch : int, optional
        Minibatches of each worker after which an epoch ends; by default it is all of the data.
    validation_mode : {"inline", "async"}
        See `Trainer.fit`.
    output : str, optional
        Where the trained network is saved; that of a network from DL4J may be a ``.zip``, which a JVM restores.
    name, storage_path : str, optional
        A run directory, from which the same command goes on where it was cut off; see `Trainer.fit`.
    checkpoint : mapping, optional
        Options of `CheckpointConfig`: ``{every: 5min, keep: 3}``.
    metrics : list of str or mapping, optional
        What is evaluated of the first output: names, or ``type`` and options: ``[evaluation, {type: roc}]``.
        By default what the losses are about.
    """

    network: Annotated[_Made | _Imported, Discriminator(_kind_of)]
    data: DataOptions
    master: dict[str, Any] | str = Field(default_factory=dict)
    backend: str = "auto"
    epochs: int = Field(default=1, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    validation_mode: Literal["inline", "async"] = "inline"
    output: str | None = None
    name: str | None = None
    storage_path: str | None = None
    checkpoint: dict[str, Any] | None = None
    metrics: list[str | dict[str, Any]] | None = None

    def run_options(self) -> dict[str, Any]:
        """Return what `Trainer.fit` is told of a run directory, and of epochs."""
        checkpoint = None if self.checkpoint is None else CheckpointConfig(**self.checkpoint)
        named = {"name": self.name, "storage_path": self.storage_path, "checkpoint": checkpoint}
        return {**named, "steps_per_epoch": self.steps_per_epoch, "validation_mode": self.validation_mode}

    def make_network(self) -> Network:
        """Build the network, its first values drawn by the master's ``rng_seed`` where that is given.

        Raises
        ------
        ConfigurationError
            Names the import path that fails.
        """
        seed = self.make_master().rng_seed
        if seed is None:
            return self._make_network()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)  # torch takes no larger one
            return self._make_network()

    def _make_network(self) -> Network:
        options = self.network
        if isinstance(options, ImportedOptions):
            return _import(options)
        arguments: dict[str, Any] = options.model_dump(include=_NETWORK_ARGUMENTS)
        graph = options.kind == "ComputationGraph"
        if graph:
            arguments["loss_weights"] = options.loss_weights
        elif options.loss_weights is not None or isinstance(options.loss, list):
            raise ConfigurationError("network: several losses and loss_weights need kind: ComputationGraph")
        return (ComputationGraph if graph else MultiLayerNetwork)(
            module=import_object(options.module),
            loss=_loss(options.loss),
            optimizer=_factory(options.optimizer, "network.optimizer"),
            schedule=_factory(options.schedule, "network.schedule") if options.schedule else None,
            training_step=None if options.training_step is None else import_object(options.training_step),
            **arguments,
        )

    def check_output(self, network: Network) -> None:
        """Raise a ConfigurationError, before anything is trained, where the network cannot be written as the output."""
        if self.output and Path(self.output).is_dir():
            raise ConfigurationError(f"output must be a file to write, {self.output} is a directory")
        if self._writes_zip() and network.dl4j is None:
            raise ConfigurationError(
                f"output: {self.output} would be a model zip of DL4J's, and only a network that came from DL4J can be "
                f"written as one; name another file, such as {str(self.output)[:-4]}.safetensors"
            )

    def _writes_zip(self) -> bool:
        return self.output is not None and self.output.lower().endswith(".zip")

    def save(self, network: Network) -> None:
        """Write the trained network to the output; a zip without the state of an optimizer that is not DL4J's.

        Raises
        ------
        ConfigurationError
            When DL4J has no way to write it, such as its normalizer; says which network file has been written instead.
        """
        if not self._writes_zip():
            network.save(str(self.output))
            return
        try:
            save_dl4j(network, str(self.output), updater=self.network.optimizer is None)
        except ConfigurationError as error:
            kept = f"{str(self.output)[:-4]}.safetensors"
            network.save(kept)
            raise ConfigurationError(f"output: {error}; the trained network is in {kept}") from error

    def load_trained(self, path: str) -> Network:
        """Return the network with the values in a file of `save`, or in a model zip of DL4J's, to predict and score."""
        try:
            zipped = read_start(path, 2)[0] == b"PK"
        except OSError:  # said below
            zipped = False
        if not zipped:
            return self.make_network().load(path, updater=False)
        options = self.network
        return load_dl4j(path, training=False, device=options.device, autocast=options.autocast)

    def make_normalizer(self, network: Network, data: Any, backend: Any) -> Normalizer | None:
        """Fit the normalizer to `data`, or load it; that of the network itself where the file names none."""
        if self.network.normalizer is None:
            return network.normalizer
        options = dict(self.network.normalizer)
        if set(options) == {"file"}:
            return load_normalizer(str(options["file"]))
        return Normalizer.from_dict({"type": options.pop("type", None), "options": options}).fit(data, backend=backend)

    def make_master(self) -> TrainingMaster:
        """Build the training master; one in a file without ``type`` is told by its properties."""
        options = dict(self.master) if isinstance(self.master, dict) else _read_options(self.master)
        told = owner_of(options) if isinstance(self.master, str) and "type" not in options else None
        kind = told[0] if told else masters[str(options.pop("type", "parameter_averaging"))]
        master: TrainingMaster = kind.from_dict(options)
        return master

    def make_metrics(self, network: Network, charts: bool = False) -> dict[int, list[BaseEvaluation]]:
        """Build the metrics of each output; `charts` asks for those with curves and histograms too.

        Raises
        ------
        ConfigurationError
            When a metric does not exist, or nothing says what a loss is about.
        """
        if self.metrics is not None:
            given = [{"type": one} if isinstance(one, str) else dict(one) for one in self.metrics]
            return {0: [BaseEvaluation.from_dict({"type": one.pop("type", None), "settings": one}) for one in given]}
        losses = () if network.objective is None else network.objective.losses
        return {number: _metrics_of(loss, charts) for number, loss in enumerate(losses)}


def _read_options(path: str) -> dict[str, Any]:
    try:
        text = read_whole(path, LONGEST).decode()
        options = parse_json(text, LONGEST) if text.lstrip().startswith("{") else parse_yaml(text, LONGEST)
    except (OSError, DocumentError, DataError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"master: {path} cannot be read as JSON or YAML: {error}") from None
    if not isinstance(options, dict):
        raise ConfigurationError(f"master: {path} must hold a mapping of options, got {shorten(options)}")
    return options


def _import(options: ImportedOptions) -> Network:
    factories = {
        name: _factory(value, f"network.{name}")
        for name, value in (("optimizer", options.optimizer), ("schedule", options.schedule))
        if value is not None
    }
    return load_dl4j(options.dl4j, **factories, **options.model_dump(include={"device", "autocast", "accumulate"}))


def _metrics_of(loss: Loss, charts: bool) -> list[BaseEvaluation]:
    if loss.judges == "classes":
        return [Evaluation(), *([ROCMultiClass(_STEPS), EvaluationCalibration()] if charts else [])]
    if loss.judges == "yes or no":
        return [EvaluationBinary(roc_binary_steps=_STEPS)]
    if loss.judges == "values":
        return [RegressionEvaluation()]
    raise ConfigurationError(
        f"the loss {loss.name} does not say what to evaluate; list it in the file, such as metrics: [evaluation]; "
        f"known: {', '.join(evaluations)}"
    )


def read_job(path: str | Path) -> Job:
    """Read a job from a YAML file; its folder becomes importable, for modules that lie beside it.

    Raises
    ------
    ConfigurationError
        When the file is missing, is no YAML, or has wrong options; lists all of them.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigurationError(f"no configuration file at {file}")
    try:
        options = parse_yaml(read_whole(file, LONGEST).decode(), LONGEST)
    except (DocumentError, DataError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not YAML as a job is written: {error}") from None
    if not isinstance(options, dict):
        raise ConfigurationError(f"{file} must hold a mapping with network and data, got {shorten(options)}")
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return Job.model_validate(options)
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {'; '.join(map(_explain, error.errors()))}") from None


def _explain(problem: Any) -> str:
    """Say what is wrong with one option; for one that does not exist, list those that do."""
    imported = problem["loc"][:2] == ("network", "imported")
    loc = [part for number, part in enumerate(problem["loc"]) if number != 1 or part not in ("made", "imported")]
    where = ".".join(map(str, loc))
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg']}"
    sections: dict[Any, type[_Options]] = {"network": ImportedOptions if imported else NetworkOptions}
    options = Job if len(loc) == 1 else sections.get(loc[0], ColumnOptions if "columns" in loc else DataOptions)
    return f"{where} is no option; known: {', '.join(options.model_fields)}"


def _loss(options: str | dict[str, Any] | list[str | dict[str, Any]]) -> Any:
    if isinstance(options, list):
        return [_loss(one) for one in options]
    made = import_object(options) if isinstance(options, str) else _factory(options, "network.loss")
    return made() if isinstance(made, type) or isinstance(options, dict) else made


def _factory(options: dict[str, Any], where: str) -> Any:
    rest = dict(options)
    path = rest.pop("class", None)
    if not isinstance(path, str):
        raise ConfigurationError(f"{where} needs 'class', an import path such as 'torch.optim:SGD', got {options!r}")
    return partial(import_object(path), **rest)
