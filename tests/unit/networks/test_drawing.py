"""A module that is made again in another thread does not change what a step draws."""

from __future__ import annotations

import threading
import time

import numpy as np
import torch
from torch import nn

import strombus as sb
from strombus.types import DataSet
from strombus.worker.step import seed_torch


class Draws(nn.Module):
    """Draw random numbers now and then, when it is made and in each step."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        time.sleep(0.01)

    def forward(self, features):
        for _ in range(3):
            features = features * torch.rand_like(features)
            time.sleep(0.005)
        return self.layer(features)


def train(network):
    """Take five steps from a seed; return the parameters."""
    rng = np.random.default_rng(0)
    batch = DataSet(rng.normal(size=(8, 4)).astype(np.float32), rng.normal(size=(8, 2)).astype(np.float32))
    replica = network.replica()
    seed_torch(replica, 5)
    for _ in range(5):
        replica.fit(batch)
    return replica.flat.read()


def test_steps_draw_the_same_whatever_other_threads_make():
    network, ended = sb.MultiLayerNetwork(Draws, nn.MSELoss(), torch.optim.SGD), threading.Event()
    expected = train(network)

    def make():
        while not ended.is_set():
            network.copy_module()

    thread = threading.Thread(target=make)
    thread.start()
    try:
        found = train(network)
    finally:
        ended.set()
        thread.join()
    np.testing.assert_array_equal(found, expected)
