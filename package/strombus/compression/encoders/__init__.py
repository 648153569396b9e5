"""How an update is written: one file for each way."""

from strombus.compression.encoders.base import Encoder
from strombus.compression.encoders.dense import DenseEncoder
from strombus.compression.encoders.threshold import ThresholdEncoder
from strombus.registry import Registry

__all__ = ["DenseEncoder", "Encoder", "ThresholdEncoder", "encoders"]

encoders = Registry(
    "encoder",
    {
        "dense": "strombus.compression.encoders.dense:DenseEncoder",
        "threshold": "strombus.compression.encoders.threshold:ThresholdEncoder",
    },
    group="strombus.encoders",
)
