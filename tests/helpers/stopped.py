"""A fit as a program of its own, which a test sends signals to and runs again: stopped.py BACKEND FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import cloudpickle
import numpy as np
from helpers import hooks, networks
from helpers.hooks import SlowSteps
from helpers.networks import make_batch_norm, make_data, make_network

import strombus as sb

EPOCHS, ROWS = 3, 160


def make_fit(master):
    """Return a network and a master whose fits take a second, and have the same bits each time."""
    options = {"workers": 2, "batch_size_per_worker": 4, "rng_seed": 7, "training_hooks": [SlowSteps()]}
    if master == "sharing":
        return make_network("momentum", make_batch_norm), sb.SharedTrainingMaster(max_staleness=0, **options)
    averaging = sb.ParameterAveragingTrainingMaster(averaging_frequency=2, **options)
    return make_network("momentum", make_batch_norm), averaging


def main(backend: str, folder: str) -> None:
    cloudpickle.register_pickle_by_value(hooks)
    cloudpickle.register_pickle_by_value(networks)
    network, master = make_fit("averaging")
    with sb.Trainer(network, master, backend=backend) as trainer:
        try:
            trainer.fit(make_data(ROWS), EPOCHS, progress=False, name="one", storage_path=folder)
        except KeyboardInterrupt:
            np.save(Path(folder) / "held.npy", network.state().parameters)  # as a notebook's next cell may
            raise


if __name__ == "__main__":
    main(*sys.argv[1:])
