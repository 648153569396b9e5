"""Training masters: how a network is trained on many workers, seen from the driver."""

from strombus.registry import Registry

__all__ = ["masters"]

masters = Registry(
    "training master",
    {
        "parameter_averaging": "strombus.masters.parameter_averaging:ParameterAveragingTrainingMaster",
        "shared_training": "strombus.masters.shared_training:SharedTrainingMaster",
    },
    group="strombus.masters",
)
