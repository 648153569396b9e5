"""An encoder that the library does not know: one class, with a form of its own on the wire, trains like any other."""

from __future__ import annotations

import sys
from typing import ClassVar

import cloudpickle
import numpy as np
import pytest
import torch
from helpers import networks
from helpers.networks import make_data, make_network
from torch import nn

import strombus as sb
from strombus.compression import Compression, Compressor, Encoded, Encoder, Parsed, pack_own
from strombus.errors import WireError

cloudpickle.register_pickle_by_value(networks)
cloudpickle.register_pickle_by_value(sys.modules[__name__])

PAIR = np.dtype([("index", "<u4"), ("value", "<f8")])


class LargestEncoder(Encoder):
    """Send the largest elements of the residual as they are, however large; there is no threshold."""

    name: ClassVar[str] = "largest"

    elements: int = 10

    def encode_(self, intake):
        residual = intake.residual()
        indices = residual.abs().topk(min(self.elements, intake.length)).indices.sort().values
        pairs = np.empty(len(indices), PAIR)
        pairs["index"], pairs["value"] = indices.cpu().numpy(), residual[indices].cpu().numpy()
        residual[indices] = 0.0
        sent = self.read(pairs.view(np.uint8), intake.length, np.dtype("f8"))
        return Encoded(pack_own(pairs.tobytes(), intake.length, sent.dtype), Parsed.of_values(sent))

    def read(self, body, length, dtype):
        if len(body) % PAIR.itemsize:
            raise WireError(f"{len(body)} bytes are no pairs")
        pairs = body.view(PAIR)
        if (pairs["index"] >= length).any():
            raise WireError("an index is too large")
        values = np.zeros(length, dtype)
        values[pairs["index"]] = pairs["value"]
        return values


def fit(executor, encoder, **options):
    network = make_network("momentum")
    defaults = {"workers": 2, "batch_size_per_worker": 4, "rng_seed": 1, "max_staleness": 0, "timeout": 60}
    master = sb.SharedTrainingMaster(encoder=encoder, **{**defaults, **options})
    with sb.Trainer(network, master, backend=executor) as trainer:
        first = trainer.calculate_score(make_data(80))
        trainer.fit(make_data(80), epochs=3, progress=False)
        return network.state().parameters, first, trainer.calculate_score(make_data(80))


def test_it_trains_a_gang(local_executors):
    everything, *_ = fit(local_executors[2], LargestEncoder(elements=10**6))
    dense, *_ = fit(local_executors[2], "dense")
    assert np.array_equal(everything, dense)
    few, before, after = fit(local_executors[2], LargestEncoder(elements=5), on_nonfinite="skip")
    assert after < 0.8 * before
    assert not np.array_equal(few, dense)


def make():
    parameter = nn.Parameter(torch.zeros(50, dtype=torch.float64))
    return parameter, Compressor(Compression(encoder=LargestEncoder()), [parameter], parameter.data)


def test_what_it_sends_and_keeps_is_the_step_and_damage_changes_nothing():
    parameter, compressor = make()
    peers, peer = make()
    parameter.grad = torch.linspace(-1, 1, 50, dtype=torch.float64)
    update = compressor.step_(torch.optim.SGD([parameter], lr=1.0))
    compressor.apply_own_(1.0)
    torch.testing.assert_close(parameter.detach() + compressor.residual, -parameter.grad, rtol=0, atol=0)
    assert update.count == 10
    for damaged in (update.payload[:-1], update.payload[:16] + b"\xff" * 12, update.payload[:5] + update.payload[6:]):
        with pytest.raises(WireError):
            peer.apply_(damaged, 1.0)
    assert not peers.any()
    peer.apply_(update.payload, 1.0)
    assert torch.equal(peers, parameter)
    with pytest.raises(WireError, match="no encoding"):
        Compressor(Compression(), [parameter], parameter.data).apply_(b"\x06" + update.payload[1:], 1.0)
    with pytest.raises(WireError, match="'threshold' has no form of its own"):
        Compressor(Compression(), [parameter], parameter.data).apply_(update.payload, 1.0)
