"""Training hooks that tests use; at module level, so that workers can have them."""

from __future__ import annotations

import time

import strombus as sb


class SeenRows(sb.TrainingHook):
    """Gather, on the driver, the first feature of every row that was trained, with the worker's rank."""

    def __init__(self):
        self.rows: list[tuple[int, int]] = []
        self._here: list[int] = []

    def pre_update(self, batch, replica):
        features = batch.features[0] if isinstance(batch.features, tuple) else batch.features
        self._here += [int(value) for value in features[:, 0]]

    def state(self):
        return self._here

    def collect(self, rank, state):
        self.rows += [(rank, row) for row in state]


class SlowSteps(sb.TrainingHook):
    """Take 20 ms longer for each update."""

    def post_update(self, batch, replica):
        time.sleep(0.02)
