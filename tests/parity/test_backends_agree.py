"""The same program gives the same parameters on every backend, with the same seed and workers."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.networks import make_batch_norm, make_data, make_mlp, make_mlp32, make_network

import strombus as sb

# Adam divides by the gradient's size, so that it blows rounding up where the gradient is only rounding: in
# float32, and for a bias before batch normalisation.
CASES = {
    "float64, Adam": (make_mlp, "adam", np.float64, 1e-12),
    "float32, momentum": (make_mlp32, "momentum", np.float32, 1e-6),
    "batch norm and dropout, momentum": (make_batch_norm, "momentum", np.float64, 1e-12),
}


@pytest.fixture(scope="session")
def first_seen():
    """Parameters by case from the backend that ran first."""
    return {}


@pytest.mark.parametrize("approach", ["Export", "Direct"])
@pytest.mark.parametrize("case", CASES)
def test_parameters_agree(backend, case, approach, first_seen):
    module, optimizer, dtype, tolerance = CASES[case]
    network = make_network(optimizer, module)
    master = sb.ParameterAveragingTrainingMaster(
        workers=3, batch_size_per_worker=4, averaging_frequency=2, rng_seed=7, rdd_training_approach=approach
    )
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(make_data(67, dtype=dtype), epochs=2, progress=False)
    assert result.examples == 134
    got = network.state().parameters
    expected = first_seen.setdefault((case, approach), got)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


def test_another_seed_gives_other_parameters(local_executors):
    vectors = []
    for seed in (1, 1, 2):
        network = make_network()
        master = sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=4, rng_seed=seed)
        sb.Trainer(network, master, backend=local_executors[1]).fit(make_data(40), progress=False)
        vectors.append(network.state().parameters)
    assert np.array_equal(vectors[0], vectors[1])
    assert not np.array_equal(vectors[0], vectors[2])
