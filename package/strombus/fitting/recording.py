"""What a run directory says of a fit: its options before, its result after."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from strombus.callbacks import Callback, EarlyStopping
from strombus.data import LocalStream, Source, open_source
from strombus.errors import ConfigurationError, DataError, MissingDataError, RunError, StrombusWarning, hide_credentials
from strombus.files import join, open_storage
from strombus.fitting.checkpointing import Keeper, read_counts, read_record
from strombus.fitting.result import FitResult
from strombus.fitting.settings import differences
from strombus.masters.base import TrainingMaster
from strombus.networks import Network
from strombus.runs import RESULT, FinishedRun, Run
from strombus.stats import TrainingStats
from strombus.stats.lines import FILE_NAME

__all__ = ["count_known", "describe", "record_result", "restore_result"]

logger = logging.getLogger(__name__)

NETWORK = "network.safetensors"
_PACKAGES = ("strombus", "torch", "numpy", "zarr")
_NETWORK_OPTIONS = ("l1", "l2", "device", "autocast", "accumulate", "clip_grad_norm", "clip_grad_value")


def describe(network: Network, master: TrainingMaster, epochs: int, steps: int | None = None) -> dict[str, Any]:
    """Return what a fit is asked to do, for ``config.json``: versions, network, master and epochs."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "network": _network(network),
        "master": _master(master),
        "epochs": epochs,
        "steps_per_epoch": steps,
        "first_epoch": network.epoch + 1,
    }


def count_known(data: Any) -> dict[str, int]:
    """Return the ``examples`` of data, where they are known without a pass over it, and it is there still."""
    try:
        source = open_source(data)
    except MissingDataError:
        return {}
    if isinstance(source, Source):
        return {"examples": source.rows}
    if isinstance(source, LocalStream) and isinstance(source.objects, list | tuple):
        return {"examples": sum(map(len, source))}
    return {}


def restore_result(
    finished: FinishedRun,
    network: Network,
    settings: Mapping[str, Any],
    accept_changes: bool,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Give `network`, and early stopping among `callbacks`, what a run that has ended left, and return its result.

    Raises
    ------
    RunError
        When the run was another one than `settings` ask for, unless that is accepted.
    DataError
        When its files are damaged.
    """
    changed = differences(finished.config, settings)
    if changed and not accept_changes:
        raise RunError(
            f"the run in {finished.path} has ended, and had other settings ({'; '.join(changed)}); take another name, "
            "or have its result with accept_changes=True"
        )
    logger.info("the run in %s has ended before: this is its result", finished.path)
    network.load(join(finished.path, NETWORK))
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            callback.restore(finished, network)
    values = finished.result
    try:
        return FitResult(
            network,
            tuple(read_record(record) for record in values["epochs"]),
            int(values["examples"]),
            int(values["minibatches"]),
            float(values["seconds"]),
            int(values["seed"]),
            _stats(finished.path),
            values["stopped_by"],
            tuple(values.get("failures", ())),
            read_counts(values.get("skipped", {})),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{finished.path}/{RESULT} is damaged: {type(error).__name__}: {error}") from None


def _stats(path: str) -> TrainingStats:
    files, target = open_storage(join(path, FILE_NAME))
    return TrainingStats.load(path) if files.isfile(target) else TrainingStats()


def record_result(keeper: Keeper, result: FitResult) -> None:
    """Write ``network.safetensors``, what was timed and, last of all, ``result.json``."""
    with keeper.tolerant("the result"):
        _write_result(keeper.run, result)


def _write_result(run: Run, result: FitResult) -> None:
    network, path = result.network, run.file(NETWORK)
    try:
        network.save(path)
    except ConfigurationError as error:
        logger.warning("the optimizer's state is not kept in %s: %s", hide_credentials(path), error)
        network.save(path, updater=False)
    if result.stats.keys():
        result.stats.save(run.path)
    run.write(
        RESULT,
        {
            "epochs": [asdict(record) for record in result.epochs],
            "examples": result.examples,
            "minibatches": result.minibatches,
            "iteration": network.iteration,
            "score": result.score,
            "seconds": result.seconds,
            "seed": result.seed,
            "stopped_by": result.stopped_by,
            "failures": list(result.failures),
            "skipped": dict(result.skipped),
        },
    )


def _network(network: Network) -> dict[str, Any]:
    losses = network.objective.losses if network.objective is not None else []
    return {
        "class": type(network).__name__,
        "module": str(network.module),
        "parameters": network.num_params(),
        "dtype": str(network.dtype),
        "loss": [_callable(loss.function) for loss in losses],
        "optimizer": _callable(network.optimizer),
        "schedule": _callable(network.schedule),
        "training_step": _callable(network.training_step),
        **{name: getattr(network, name) for name in _NETWORK_OPTIONS},
        "normalizer": _normalizer(network),
    }


def _normalizer(network: Network) -> Any:
    """Return the normalizer with a digest in place of what it was fitted to, which may be long."""
    if network.normalizer is None:
        return None
    record = network.normalizer.to_dict()
    return {**record, "fitted": hashlib.sha256(json.dumps(record["fitted"]).encode()).hexdigest()[:16]}


def _master(master: TrainingMaster) -> dict[str, Any]:
    """Return the options under DL4J's names, or as text where a part has no written form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StrombusWarning)  # hooks are named below
        try:
            options = master.to_dict()
        except ConfigurationError:
            options = {"options": repr(master)}
    return {"type": master.name, **options, "hooks": [type(hook).__name__ for hook in master.training_hooks]}


def _callable(value: Any) -> Any:
    """Return ``"module:name"`` of a class or function, with the options of a partial one."""
    if isinstance(value, functools.partial):
        return {"class": _callable(value.func), "arguments": list(value.args), **value.keywords}
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}:{name}" if name else value
