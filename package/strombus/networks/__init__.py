"""Networks: a torch module with its loss and optimizer, and the working copy that a worker trains."""

from strombus.networks.network import ComputationGraph, MultiLayerNetwork, Network
from strombus.networks.replica import Replica, StepResult
from strombus.networks.training_step import Minibatch

__all__ = ["ComputationGraph", "Minibatch", "MultiLayerNetwork", "Network", "Replica", "StepResult"]
