"""What DL4J's `SharedTrainingMaster` writes as JSON or YAML, brought to the options that it stands for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from strombus.documents import shorten
from strombus.errors import ConfigurationError, StrombusWarning
from strombus.transport import transports

__all__ = ["algorithm_type", "from_dl4j", "storage_level"]

# A master's inner state: it says nothing about how to train.
_STATE = frozenset(
    {
        "isFirstRun",
        "lastExportedRDDId",
        "lastRDDExportPath",
        "logMinibatchesPerWorker",
        "rng",
        "setupDone",
        "stats",
        "trainingMasterUID",
    }
)

# Java objects that cannot be read here: null in every file that can.
_OBJECTS = frozenset({"listeners", "trainingHooks"})

# The JVM's garbage collector; with DL4J's defaults.
_INERT = {"workerPeriodicGCFrequency": 5000, "workerTogglePeriodicGC": True}

_PORT = 49876
"""Where DL4J listens when no port was set."""

_ANSWER = 30_000
"""Milliseconds that DL4J waits for an answer when nothing else was set."""

# What DL4J's master sets by itself, whatever was given.
_FORCED = frozenset({"executionMode"})

# Of DL4J's VoidConfiguration, what has no meaning here; with DL4J's defaults.
_VOID_INERT = {
    "backupAddresses": [],
    "chunksBufferSize": 1 << 30,
    "faultToleranceStrategy": "NONE",
    "forcedRole": None,
    "maxChunkSize": 65536,
    "maxFailuresPerNode": 3,
    "multicastInterface": None,
    "multicastNetwork": "224.0.1.1",
    "multicastPort": 59876,
    "numberOfShards": 1,
    "responseTimeframe": 500,
    "retransmitTimeout": 1000,
    "shardAddresses": [],
    "streamId": -1,
    "ttl": 4,
    "useHS": False,
    "useNS": False,
}
_VOID_ACTING = frozenset(
    {
        "controllerAddress",
        "meshBuildMode",
        "networkMask",
        "portSupplier",
        "responseTimeout",
        "transportType",
        "unicastControllerPort",
    }
)

# What a user of DL4J will look for instead.
_INSTEAD = {
    "chunksBufferSize": "messages travel whole, and transport_options.window bounds the bytes that wait for a reader",
    "maxChunkSize": "messages travel whole, and transport_options.largest_message bounds them",
    "responseTimeframe": "transport_options.connect_timeout and send_timeout bound the waits",
    "retransmitTimeout": "what is missing is asked for at once, for transport_options.send_timeout at most",
}


def from_dl4j(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` as `SharedTrainingMaster` takes them; what DL4J did not write comes back as it is.

    A warning names the properties that were changed in DL4J and have no effect here.

    Raises
    ------
    ConfigurationError
        For a property of the network's configuration that DL4J does not have; lists those that it has. For a transport
        that runs in neither.
    """
    if "voidConfiguration" not in options:
        return dict(options)
    void = _record(options, "voidConfiguration")
    dropped = _STATE | _INERT.keys() | {name for name in _OBJECTS if options.get(name) is None}
    kept = {name: value for name, value in options.items() if name not in dropped}
    del kept["voidConfiguration"]
    kept["transportOptions"] = _transport(void, "transport" in kept)
    if not kept.get("batchSizePerWorker"):  # 0 is DL4J's "not set"
        kept.pop("batchSizePerWorker", None)
    if kept.get("thresholdAlgorithm", ...) is None:
        del kept["thresholdAlgorithm"]
    if kept.get("residualPostProcessor", ...) is None:
        kept["residualPostProcessor"] = "none"
    if isinstance(kept.get("storageLevel"), dict):
        kept["storageLevel"] = storage_level(kept["storageLevel"])
    _warn(_changed(options, _INERT))
    return kept


def _transport(void: Mapping[str, Any], named: bool) -> dict[str, Any]:
    """Return the transport's options; `named` says whether the file names a transport of ours."""
    known = {*_VOID_INERT, *_VOID_ACTING, *_FORCED}
    if unknown := sorted(void.keys() - known):
        raise ConfigurationError(
            f"voidConfiguration has no property {', '.join(map(shorten, unknown[:20]))}; "
            f"known: {', '.join(sorted(known))}"
        )
    if void.get("transportType", "ROUTED_UDP") not in ("ROUTED_UDP", None) and not named:
        raise ConfigurationError(
            f"voidConfiguration: transportType {str(void['transportType'])[:100]} names nothing that runs here, nor in "
            f"DL4J, which takes ROUTED_UDP alone; leave it out, or name one of ours as transport "
            f"({', '.join(transports)})"
        )
    _warn(_changed(void, _VOID_INERT))
    options: dict[str, Any] = {name: void[name] for name in ("controllerAddress", "networkMask") if void.get(name)}
    # DL4J's own port is that of a controller; here every member has one, and any free one will do.
    given = (_record(void, "portSupplier").get("port"), void.get("unicastControllerPort"))
    if port := next((one for one in given if one not in (None, 0, _PORT)), None):
        options["ports"] = (port, port)
    if void.get("responseTimeout", _ANSWER) not in (_ANSWER, None):
        options["connectTimeout"] = options["sendTimeout"] = _seconds(void["responseTimeout"])
    if void.get("meshBuildMode") == "MESH":
        options["topology"] = "tree"
    elif "controllerAddress" in options:  # everything goes through it
        options["topology"] = "star"
    return options


def _record(options: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = options.get(name)
    if not isinstance(found, Mapping | None):
        raise ConfigurationError(f"{name} must be a mapping, got {shorten(found)}")
    return found or {}


def _seconds(milliseconds: Any) -> float:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        raise ConfigurationError(f"responseTimeout must be milliseconds, got {shorten(milliseconds)}")
    return milliseconds / 1000


def _changed(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    return sorted(name for name, default in defaults.items() if options.get(name, default) not in (default, None))


def _warn(names: list[str]) -> None:
    if names:
        advice = "".join(f"; {name}: {_INSTEAD[name]}" for name in names if name in _INSTEAD)
        warnings.warn(f"DL4J's {', '.join(names)} have no effect here{advice}", StrombusWarning, stacklevel=5)


def storage_level(fields: Mapping[str, Any]) -> str:
    """Return the name of a storage level that is given by its properties, as Spark has them."""
    if fields.get("_useOffHeap"):
        return "OFF_HEAP"
    places = "_AND_".join(
        name for name, used in (("MEMORY", fields.get("_useMemory")), ("DISK", fields.get("_useDisk"))) if used
    )
    if places in ("MEMORY", "DISK"):
        places += "_ONLY"
    serialised = "" if fields.get("_deserialized") or places == "DISK_ONLY" else "_SER"
    copies = "_2" if fields.get("_replication", 1) == 2 else ""
    return f"{places}{serialised}{copies}" if places else "NONE"


def algorithm_type(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the type of what DL4J writes without one, told by its options, and these without its inner state.

    Parameters
    ----------
    name : str
        The master's option.

    Raises
    ------
    ValueError
        Where options do not tell.
    """
    kept = {key: value for key, value in options.items() if key not in ("lastSparsity", "lastThreshold")}
    if name == "residual_post_processor":
        return ("clipping" if kept else "none"), kept
    if name == "threshold_algorithm":
        return ("fixed" if "threshold" in kept else "target_sparsity" if "sparsityTarget" in kept else "adaptive"), kept
    raise ValueError(f"{name} is written with its type, such as {{type: dense}}")
