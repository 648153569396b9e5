"""What DL4J exported is data like any other, on every backend: the same figures as of its rows in memory."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import torch
from helpers.dl4j import array_of
from torch import nn

import strombus as sb
from strombus.compat.dl4j import SparkDl4jMultiLayer
from strombus.interchange.dl4j.binary import Input

EXPORTED = Path(__file__).parents[1] / "golden/dl4j/exported"
KEPT = [0, 1, 2, 3, 8, 7, 6, 5, 4, 9, 10, 17, 16, 15, 14, 13, *range(18, 24), 29, 28, 27, 26, 25, 24, 30, 31]
"""The examples that DL4J wrote of its 32, in its order."""


def make_network():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return sb.MultiLayerNetwork(module, nn.CrossEntropyLoss(), functools.partial(torch.optim.SGD, lr=0.1))


def make_master():
    return sb.ParameterAveragingTrainingMaster(workers=2, batch_size_per_worker=4, averaging_frequency=2, rng_seed=5)


def in_memory():
    sets = json.loads((EXPORTED / "exported.json").read_text())["source_data_sets"]
    return tuple(np.concatenate([array_of(one[name]) for one in sets])[KEPT] for name in ("features", "labels"))


def figures(data, backend):
    network = make_network()
    with sb.Trainer(network, make_master(), backend=backend) as trainer:
        result = trainer.fit(data, epochs=2, progress=False)
        return {
            "examples": result.examples,
            "parameters": network.state().parameters,
            "score": trainer.calculate_score(data),
            "scores": trainer.score_examples(data, False),
            "accuracy": trainer.evaluate(data).accuracy(),
            "outputs": trainer.predict(data),
        }


def headers_only(self, dtype, count, what, out=None, real=Input.array):
    """Stand in on the driver, which never reads the numbers."""
    assert what != "the numbers"
    return real(self, dtype, count, what, out)


def test_an_exported_directory_is_fitted_scored_and_evaluated_as_its_rows_are(backend, monkeypatch, request):
    wanted = figures(in_memory(), backend)
    if "local-1" not in request.node.name:
        monkeypatch.setattr(Input, "array", headers_only)
    found = figures(EXPORTED / "data_sets_batch_4", backend)
    assert found["examples"] == 60
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_fit_paths_takes_the_files(backend):
    paths = sorted(str(path) for path in (EXPORTED / "data_sets_batch_4").glob("*.bin"))
    fitted = SparkDl4jMultiLayer(backend, make_network(), make_master()).fitPaths(paths)
    wanted = make_network()
    with sb.Trainer(wanted, make_master(), backend=backend) as trainer:
        trainer.fit(in_memory(), progress=False)
    np.testing.assert_array_equal(fitted.state().parameters, wanted.state().parameters)


def test_a_converted_directory_has_the_same_rows(backend, tmp_path):
    sb.data.import_dl4j(EXPORTED / "data_sets_batch_4", tmp_path / "d.zarr", backend=backend, progress=False)
    source = sb.data.open_dataset(tmp_path / "d.zarr")
    found = [np.concatenate([source.read(block)[name] for block in source.blocks()]) for name in source.columns]
    for array, wanted in zip(found, in_memory(), strict=True):
        np.testing.assert_array_equal(array, wanted)
