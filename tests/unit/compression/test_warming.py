"""Nothing is left to compile for a member's steps once it has warmed up."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import torch
from torch import nn
from strombus.compression import Compression, Compressor, bits, kernels, warm_up

def compiled():
    found = {**vars(kernels), **vars(bits)}
    return {name: len(one.signatures) for name, one in found.items() if hasattr(one, "signatures")}

told = []
warm_up(torch.float32, lambda: told.append(1))
before = compiled()
torch.manual_seed(1)
for scope in ("model", "tensor"):
    for make in (torch.optim.SGD, torch.optim.AdamW, torch.optim.NAdam, torch.optim.Rprop,
                 lambda p: torch.optim.SGD(p, momentum=0.9, nesterov=True, weight_decay=0.1)):
        vector = torch.zeros(3000)
        parameters = [nn.Parameter(vector[:2000].view(40, 50)), nn.Parameter(vector[2000:])]
        optimizer, compressor = make(parameters), Compressor(Compression(threshold_scope=scope), parameters, vector)
        for _ in range(7):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape)
            payload = compressor.step_(optimizer).payload
            compressor.apply_own_(0.5)
            compressor.apply_(memoryview(bytes(8) + payload)[8:], 0.5)
assert len(told) > 3
assert sum(before.values()) > 10, before
assert compiled() == before, (before, compiled())
"""


def test_no_kernel_is_compiled_after_the_warm_up() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
