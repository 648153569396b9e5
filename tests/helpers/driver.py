"""A fit with a name as a program of its own, which a test kills and runs again: driver.py BACKEND FOLDER MASTER."""

from __future__ import annotations

import functools
import sys

import torch
from helpers.hooks import SlowSteps
from helpers.networks import make_batch_norm, make_data, make_network

import strombus as sb


def make_master(kind: str) -> sb.TrainingMaster:
    """Return a master of two workers whose fits can be repeated bit for bit."""
    options = {"workers": 2, "batch_size_per_worker": 4, "rng_seed": 7, "training_hooks": [SlowSteps()]}
    if kind == "averaging":
        return sb.ParameterAveragingTrainingMaster(averaging_frequency=1, **options)
    return sb.SharedTrainingMaster(
        max_staleness=0, updates_threshold=0.05, timeout=90, step_timeout=20, max_failures=9, min_workers=2, **options
    )


def open_backend(name: str) -> object:
    """Return what a Trainer takes: for Spark, a context of two executor processes."""
    if name != "spark":
        return name
    from helpers.spark import spark_context

    return spark_context()


def main(backend: str, folder: str, master: str = "averaging") -> None:
    schedule = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=7, gamma=0.8)
    network = make_network("momentum", make_batch_norm, schedule=schedule)
    with sb.Trainer(network, make_master(master), backend=open_backend(backend)) as trainer:
        trainer.fit(
            make_data(160),
            epochs=3,
            validation=make_data(20, 1),
            callbacks=[sb.EarlyStopping([sb.callbacks.MaxEpochs(9)])],
            name="one",
            storage_path=folder,
            checkpoint=sb.CheckpointConfig(every="1step", max_share=1, best="score"),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
