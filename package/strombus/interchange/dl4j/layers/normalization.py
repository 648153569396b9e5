"""Batch normalisation with DL4J's running statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from strombus.interchange.dl4j.fields import Fields, unread
from strombus.interchange.dl4j.layers.base import Layer, Signal, pass_training
from strombus.interchange.dl4j.layers.feedforward import IMAGES

__all__ = ["BatchNormalization"]


class BatchNormalization(Layer):
    """Normalisation of each feature of rows, or channel of images (``BatchNormalization``).

    Notes
    -----
    Its activation is not computed, as in DL4J. The running variance is that over the batch, without torch's
    correction, and is kept as the logarithm of its root where DL4J does so.
    """

    running_mean: Tensor
    running_var: Tensor
    running_log10_std: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        pass_training(fields)
        fields.ignore("activationFn", "nin")
        size = fields.integer("nout", 1)
        gamma, beta = fields.number("gamma", 1.0), fields.number("beta", 0.0)
        self.eps, self.decay = fields.number("eps", 1e-5), fields.number("decay", 0.9)
        self.locked = fields.flag("lockGammaBeta", False)
        if self.locked and (gamma, beta) != (1.0, 0.0):
            raise unread(fields.place, f"lockGammaBeta with gamma {gamma}, beta {beta}", "lock them at 1 and 0 in DL4J")
        if not self.locked:
            self.declare("weight", "gamma", (1, size), role="gain")
            self.declare("bias", "beta", (1, size), role="gain")
        self.declare("running_mean", "mean", (1, size), role="statistic")
        self.logarithm = fields.flag("useLogStd", False)
        if self.logarithm:
            self.declare("running_log10_std", "log10stdev", (1, size), role="statistic")
        else:
            self.declare("running_var", "var", (1, size), role="statistic")
        fields.only_for_training("minibatch", True, "statistics of the whole data")
        fields.only("cnn2DFormat", "NCHW", IMAGES)

    def forward(self, x: Tensor, mask: Tensor | None, examples: int) -> Signal:
        """Compute rows or images."""
        if x.ndim == 3:
            raise ValueError(f"{self.place}: sequences cannot be normalised; DL4J takes their examples for features")
        if x.ndim not in (2, 4) or x.shape[1] != len(self.running_mean):
            raise ValueError(f"{self.place} takes {len(self.running_mean)} features, got {tuple(x.shape)}")
        shape = (1, -1, *(1,) * (x.ndim - 2))
        if self.training:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            variance, mean = torch.var_mean(x, axes, correction=0)
            self._follow(mean.detach(), variance.detach())
        else:
            mean = self.running_mean
            variance = 10 ** (2 * self.running_log10_std) if self.logarithm else self.running_var
        y = (x - mean.view(shape)) / (variance.view(shape) + self.eps).sqrt()
        return (y if self.locked else y * self.weight.view(shape) + self.bias.view(shape)), mask

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Bring the running statistics nearer to a minibatch's, in place."""
        self.running_mean.mul_(self.decay).add_(mean, alpha=1 - self.decay)
        if self.logarithm:
            before = 10 ** (2 * self.running_log10_std)
            self.running_log10_std.copy_((self.decay * before + (1 - self.decay) * variance).sqrt().log10())
        else:
            self.running_var.mul_(self.decay).add_(variance, alpha=1 - self.decay)
