"""How an update is written: one file for each way."""

from strombus.compression.encoders.base import Encoded, Encoder
from strombus.compression.encoders.dense import DenseEncoder
from strombus.compression.encoders.dl4j import Dl4jEncoder
from strombus.compression.encoders.threshold import ThresholdEncoder
from strombus.registry import Registry

__all__ = ["DenseEncoder", "Dl4jEncoder", "Encoded", "Encoder", "ThresholdEncoder", "encoders"]

encoders = Registry(
    "encoder",
    {
        "dense": "strombus.compression.encoders.dense:DenseEncoder",
        "dl4j": "strombus.compression.encoders.dl4j:Dl4jEncoder",
        "threshold": "strombus.compression.encoders.threshold:ThresholdEncoder",
    },
    group="strombus.encoders",
)
