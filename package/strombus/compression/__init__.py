"""Fewer bytes for an update: thresholds, residuals, encoders and the kernels under them."""

from strombus.compression.compressor import Compression, Compressor, CompressorState, Update, check_compressible
from strombus.compression.encoders import DenseEncoder, Dl4jEncoder, Encoded, Encoder, ThresholdEncoder, encoders
from strombus.compression.intake import Intake
from strombus.compression.residuals import (
    NoOpResidualPostProcessor,
    ResidualClippingPostProcessor,
    ResidualPostProcessor,
    residual_post_processors,
)
from strombus.compression.thresholds import (
    AdaptiveThresholdAlgorithm,
    FixedThresholdAlgorithm,
    TargetSparsityThresholdAlgorithm,
    ThresholdAlgorithm,
    ThresholdState,
    mean_state,
    threshold_algorithms,
)
from strombus.compression.warming import warm_up
from strombus.compression.wire import Parsed, pack_own

__all__ = [
    "AdaptiveThresholdAlgorithm",
    "Compression",
    "Compressor",
    "CompressorState",
    "DenseEncoder",
    "Dl4jEncoder",
    "Encoded",
    "Encoder",
    "FixedThresholdAlgorithm",
    "Intake",
    "NoOpResidualPostProcessor",
    "Parsed",
    "ResidualClippingPostProcessor",
    "ResidualPostProcessor",
    "TargetSparsityThresholdAlgorithm",
    "ThresholdAlgorithm",
    "ThresholdEncoder",
    "ThresholdState",
    "Update",
    "check_compressible",
    "encoders",
    "mean_state",
    "pack_own",
    "residual_post_processors",
    "threshold_algorithms",
    "warm_up",
]
