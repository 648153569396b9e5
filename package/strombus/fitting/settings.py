"""What a run was asked to do, compared with what is asked now."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from strombus.runs import plain

__all__ = ["dealing_of", "differences"]

# Options that decide where and how fast a fit runs, not what comes of it.
_FREE = {
    "master": {
        "numWorkers",
        "numWorkersPerNode",
        "prefetchNumBatches",
        "workerPrefetchBatches",
        "collectTrainingStats",
        "defaultEvaluationWorkers",
        "exportDirectory",
        "storageLevel",
        "storageLevelStreams",
        "transport",
        "transportOptions",
        "timeout",
        "stepTimeout",
        "onPeerLost",
        "maxFailures",
        "maxRollbacks",
        "minWorkers",
        "debugLongerIterations",
        "encodingDebugMode",
    },
    "network": {"device"},
}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_COMPARED = ("network", "master", "epochs", "steps_per_epoch", "first_epoch", "examples")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two records ``config.json`` and matters, such as ``"epochs was 3, is 5 now"``.

    What only one of them has is not compared.
    """
    before, now = _comparable(before), _comparable(now)
    found = []
    for name in _COMPARED:
        if name not in before or name not in now:
            continue
        old, new = before[name], now[name]
        if isinstance(old, dict) and isinstance(new, dict):
            keys = sorted((old.keys() | new.keys()) - _FREE.get(name, set()))
            found += [
                f"{name}.{key} was {old.get(key)!r}, is {new.get(key)!r} now"
                for key in keys
                if old.get(key) != new.get(key)
            ]
        elif old != new:
            found.append(f"{name} was {old!r}, is {new!r} now")
    return found


def dealing_of(settings: Mapping[str, Any]) -> Any:
    """Return the options that decide which rows of an engine's collection come together."""
    options = _comparable(settings)["master"]
    return sorted((name, repr(value)) for name, value in options.items() if name not in _FREE["master"])


def _comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as JSON has it, without the addresses of objects, which are others in each process."""
    found: dict[str, Any] = json.loads(_ADDRESS.sub("", json.dumps(plain(record))))
    return found
