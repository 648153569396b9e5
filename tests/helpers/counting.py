"""A module that counts in its own process; a file of its own, for it must never travel by value."""

from __future__ import annotations

import threading
import time

from torch import nn

__all__ = ["Counting"]


class Counting(nn.Module):
    """Give two of the features back slowly, and count how many do so at the same time in this process."""

    most = now = 0
    lock = threading.Lock()

    def forward(self, features):
        with self.lock:
            Counting.now += 1
            Counting.most = max(Counting.most, Counting.now)
        time.sleep(0.05)
        with self.lock:
            Counting.now -= 1
        return features[:, :2]
