"""Measure encoding: against adding two arrays, torch operations and NumPy, and its bytes against the entropy bound.

Run it with ``python tests/benchmarks/encode.py [millions of elements]``; everything on one thread, the peers in turn.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from common import OPTIMIZERS, make_module, paired, print_ratio
from torch import nn

from strombus.compression import Compression, Compressor, FixedThresholdAlgorithm, NoOpResidualPostProcessor
from strombus.compression.kernels import SLACK, select_sgd
from strombus.compression.wire import pack_codes

RUNS = 9


class Stream:
    """A residual in its steady state: updates whose threshold lets `share` of the elements through each step."""

    def __init__(self, elements: int, share: float) -> None:
        rng = np.random.default_rng(0)
        # Updates of either sign with mean size d take about d / 2 of the elements across a threshold of 1.
        self.update = (rng.standard_normal(elements, dtype=np.float32) * (2 * share / 0.798)).astype(np.float32)
        self.residual = rng.uniform(-1, 1, elements).astype(np.float32)
        self.codes = np.empty(elements + SLACK, np.uint32)
        self.sum = np.zeros(elements, np.float32)
        self.count = 0
        self.tensor, self.torch_update = torch.from_numpy(self.residual.copy()), torch.from_numpy(self.update)
        self.plain = self.residual.copy()

    def kernel(self) -> None:
        settings, residual = np.array([-1.0, 0.0], np.float32), self.residual
        self.count = select_sgd(self.update, residual, settings, residual, np.float32(1), self.codes, 0, 0)

    def add(self) -> None:
        np.add(self.sum, self.update, out=self.sum)

    def torch_operations(self) -> None:
        self.tensor.add_(self.torch_update)
        indices = (self.tensor.abs() >= 1.0).nonzero().view(-1)
        signs = self.tensor[indices].sign()
        self.tensor.index_add_(0, indices, signs, alpha=-1.0)
        (indices * 2 + (signs < 0)).to(torch.int32)

    def numpy_operations(self) -> None:
        self.plain += self.update
        indices = np.flatnonzero(np.abs(self.plain) >= 1.0)
        signs = np.sign(self.plain[indices])
        self.plain[indices] -= signs
        (2 * indices + (signs < 0)).astype(np.uint32)


def rate(work: Callable[[], None], size: float) -> Callable[[], float]:
    """Return a function that does the work once and returns its rate."""

    def run() -> float:
        started = time.perf_counter()
        work()
        return size / (time.perf_counter() - started)

    return run


def compare(what: str, size: float, unit: str, ours: Callable[[], None], peer: Callable[[], None], target: str) -> None:
    for work in (ours, peer):
        work()
    print_ratio(what, *paired(RUNS, rate(ours, size), rate(peer, size)), unit, target)


def kernels(millions: int) -> None:
    for share in (1e-3, 1e-2):
        stream = Stream(millions * 1_000_000, share)
        size, name = 12e-6 * len(stream.update), f"accumulate and encode {millions} M, density {share:g}"
        compare(f"{name}: b += a", size, "MB/s", stream.kernel, stream.add, ">= 0.8x at 1e-3")
        compare(f"{name}: torch operations", size, "MB/s", stream.kernel, stream.torch_operations, ">= 10x at 1e-3")
        compare(f"{name}: NumPy", size, "MB/s", stream.kernel, stream.numpy_operations, "")
        bound(stream, share)


def bound(stream: Stream, share: float) -> None:
    """Print the bits of each element that is not zero against the entropy of where they are, and a sign."""
    n, count = len(stream.update), stream.count
    p = count / n
    bits = (-p * math.log2(p) - (1 - p) * math.log2(1 - p)) / p + 1
    payload = len(pack_codes(stream.codes, count, n, np.ones(1, np.float32)))
    ours = (payload - 64) * 8 / count
    print_ratio(
        f"100 x bits a non-zero, density {share:g}: entropy", 100 * ours, 100 * bits, [ours / bits], "", "<= 1.03x"
    )
    print_ratio(
        f"bytes, density {share:g}: DL4J's int32",
        payload,
        4 * (count + 4),
        [payload / (4 * count + 16)],
        "bytes",
        "<= 0.4x",
    )


def steps(name: str) -> None:
    """Compare a step that encodes with torch's own step and clearing, for the network of the other benchmarks."""
    module = make_module()
    vector = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    parameters, start = [], 0
    for old in module.parameters():
        parameters.append(nn.Parameter(vector[start : start + old.numel()].view(old.shape)))
        start += old.numel()
    for parameter in (*parameters, *module.parameters()):
        parameter.grad = torch.randn_like(parameter) * 1e-3
    options = Compression(
        threshold_algorithm=FixedThresholdAlgorithm(threshold=8e-3 if name == "sgd" else 4e-2),
        residual_post_processor=NoOpResidualPostProcessor(),
    )
    compressor, ours, plain = (
        Compressor(options, parameters, vector),
        *(OPTIMIZERS[name](some) for some in (parameters, list(module.parameters()))),
    )
    share = 0.0

    def encode() -> None:
        nonlocal share
        share = compressor.step_(ours).count / len(vector)

    def silent() -> None:
        plain.step()
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()

    for _ in range(60):
        encode()
    size = 1.0
    compare(f"{name} step, encoded ({share:.2%}): torch's step and zeroing", size, "steps/s", encode, silent, "")


def main(millions: int = 16) -> None:
    torch.set_num_threads(1)
    kernels(millions)
    for name in OPTIMIZERS:
        steps(name)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
