"""How large a quantum is: one file for each algorithm."""

from strombus.compression.thresholds.adaptive import AdaptiveThresholdAlgorithm
from strombus.compression.thresholds.base import ThresholdAlgorithm, ThresholdState, mean_state
from strombus.compression.thresholds.fixed import FixedThresholdAlgorithm
from strombus.compression.thresholds.target_sparsity import TargetSparsityThresholdAlgorithm
from strombus.registry import Registry

__all__ = [
    "AdaptiveThresholdAlgorithm",
    "FixedThresholdAlgorithm",
    "TargetSparsityThresholdAlgorithm",
    "ThresholdAlgorithm",
    "ThresholdState",
    "mean_state",
    "threshold_algorithms",
]

threshold_algorithms = Registry(
    "threshold algorithm",
    {
        "adaptive": "strombus.compression.thresholds.adaptive:AdaptiveThresholdAlgorithm",
        "fixed": "strombus.compression.thresholds.fixed:FixedThresholdAlgorithm",
        "target_sparsity": "strombus.compression.thresholds.target_sparsity:TargetSparsityThresholdAlgorithm",
    },
    group="strombus.threshold_algorithms",
)
