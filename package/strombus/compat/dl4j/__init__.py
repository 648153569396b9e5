"""Deeplearning4j's class, method and option names, each one call into Strombus."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported on first use, as the names of `strombus` itself.
_WHERE = {
    "AdaptiveThresholdAlgorithm": "algorithms",
    "DefaultRepartitioner": "algorithms",
    "EnvironmentVarPortSupplier": "void_configuration",
    "EqualRepartitioner": "algorithms",
    "ExecutionMode": "enumerations",
    "FaultToleranceStrategy": "enumerations",
    "FixedThresholdAlgorithm": "algorithms",
    "MeshBuildMode": "enumerations",
    "NoOpRepartitioner": "algorithms",
    "NoOpResidualPostProcessor": "algorithms",
    "NodeRole": "enumerations",
    "ParameterAveragingTrainingMaster": "parameter_averaging",
    "PortSupplier": "void_configuration",
    "RDDTrainingApproach": "enumerations",
    "Repartition": "enumerations",
    "RepartitionStrategy": "enumerations",
    "ResidualClippingPostProcessor": "algorithms",
    "SharedTrainingMaster": "shared_training",
    "StaticPortSupplier": "void_configuration",
    "StorageLevel": "enumerations",
    "TargetSparsityThresholdAlgorithm": "algorithms",
    "TrainingHook": "hooks",
    "TransportType": "enumerations",
    "VoidConfiguration": "void_configuration",
}

__all__ = [
    "AdaptiveThresholdAlgorithm",
    "DefaultRepartitioner",
    "EnvironmentVarPortSupplier",
    "EqualRepartitioner",
    "ExecutionMode",
    "FaultToleranceStrategy",
    "FixedThresholdAlgorithm",
    "MeshBuildMode",
    "NoOpRepartitioner",
    "NoOpResidualPostProcessor",
    "NodeRole",
    "ParameterAveragingTrainingMaster",
    "PortSupplier",
    "RDDTrainingApproach",
    "Repartition",
    "RepartitionStrategy",
    "ResidualClippingPostProcessor",
    "SharedTrainingMaster",
    "StaticPortSupplier",
    "StorageLevel",
    "TargetSparsityThresholdAlgorithm",
    "TrainingHook",
    "TransportType",
    "VoidConfiguration",
]

if TYPE_CHECKING:
    from strombus.compat.dl4j.algorithms import (
        AdaptiveThresholdAlgorithm,
        DefaultRepartitioner,
        EqualRepartitioner,
        FixedThresholdAlgorithm,
        NoOpRepartitioner,
        NoOpResidualPostProcessor,
        ResidualClippingPostProcessor,
        TargetSparsityThresholdAlgorithm,
    )
    from strombus.compat.dl4j.enumerations import (
        ExecutionMode,
        FaultToleranceStrategy,
        MeshBuildMode,
        NodeRole,
        RDDTrainingApproach,
        Repartition,
        RepartitionStrategy,
        StorageLevel,
        TransportType,
    )
    from strombus.compat.dl4j.hooks import TrainingHook
    from strombus.compat.dl4j.parameter_averaging import ParameterAveragingTrainingMaster
    from strombus.compat.dl4j.shared_training import SharedTrainingMaster
    from strombus.compat.dl4j.void_configuration import (
        EnvironmentVarPortSupplier,
        PortSupplier,
        StaticPortSupplier,
        VoidConfiguration,
    )


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'strombus.compat.dl4j' has no attribute {name!r}")
    return getattr(import_module(f"strombus.compat.dl4j.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
