"""Who trains which rows: repartitioners and minibatch sizes. Pure; no engine, no data."""

from strombus.partitioning.base import Repartitioner, ranges_of
from strombus.partitioning.batches import batch_sizes
from strombus.partitioning.default import DefaultRepartitioner
from strombus.partitioning.equal import EqualRepartitioner
from strombus.partitioning.none import NoOpRepartitioner
from strombus.registry import Registry

__all__ = [
    "DefaultRepartitioner",
    "EqualRepartitioner",
    "NoOpRepartitioner",
    "Repartitioner",
    "batch_sizes",
    "ranges_of",
    "repartitioners",
]

repartitioners = Registry(
    "repartitioner",
    {
        "default": "strombus.partitioning.default:DefaultRepartitioner",
        "equal": "strombus.partitioning.equal:EqualRepartitioner",
        "none": "strombus.partitioning.none:NoOpRepartitioner",
    },
    group="strombus.repartitioners",
)
