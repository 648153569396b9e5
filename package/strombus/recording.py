"""What a run directory says of a fit: its options before, its result after."""

from __future__ import annotations

import functools
import logging
import platform
import warnings
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from strombus.callbacks import Callback, FitPlan
from strombus.errors import ConfigurationError, StrombusWarning
from strombus.fitting import FitResult
from strombus.masters.base import TrainingMaster
from strombus.networks import Network
from strombus.runs import CONFIG, RESULT, Run

__all__ = ["ConfigRecorder", "record_result"]

logger = logging.getLogger(__name__)

_PACKAGES = ("strombus", "torch", "numpy", "zarr")


class ConfigRecorder(Callback):
    """Write ``config.json`` when training begins: versions, network, master, backend, epochs and seed."""

    passive = True

    def on_fit_start(self, plan: FitPlan) -> None:
        assert plan.run is not None
        network: Network = plan.trainer.network
        plan.run.write(
            CONFIG,
            {
                "name": plan.run.name,
                "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
                "network": _network(network),
                "master": _master(plan.trainer.master),
                "backend": plan.backend,
                "workers": plan.workers,
                "examples": plan.examples,
                "epochs": plan.epochs,
                "first_epoch": network.epoch + 1,
                "seed": plan.seed,
            },
        )


def record_result(run: Run, result: FitResult) -> None:
    """Write ``network.safetensors``, what was timed and, last of all, ``result.json``."""
    network, path = result.network, run.file("network.safetensors")
    try:
        network.save(path)
    except ConfigurationError as error:
        logger.warning("the optimizer's state is not kept in %s: %s", path, error)
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
        **{name: getattr(network, name) for name in ("l1", "l2", "device", "autocast", "accumulate")},
    }


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
