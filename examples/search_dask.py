"""Twenty configurations of a digits network side by side on Dask; those that lag behind are stopped early.

Each trial is a fit within a Dask task, in the task's own slot. As in ASHA (Li et al. 2020), trials climb rungs of 1, 3
and 9 epochs: whenever one comes back, the best third of its rung so far goes on, from where it was.

python examples/search_dask.py
python examples/search_dask.py --scheduler tcp://scheduler:8786
"""

import argparse
import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from distributed import Client, as_completed
from sklearn.datasets import load_digits
from torch import nn

import strombus as sb

RUNGS, SHARE = (1, 3, 9), 3  # epochs by the end of each rung; one of so many goes on


def load() -> tuple[sb.DataSet, sb.DataSet]:
    """Return (train, validation); features of shape (n, 64) in 0..1."""
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(features))
    digits = sb.DataSet((features[order] / 16).astype(np.float32), labels[order])
    return digits[:1437], digits[1437:]


@dataclass(frozen=True)
class Trial:
    """A configuration, and how far it has come."""

    number: int
    rate: float
    width: int
    momentum: float
    rung: int = 0
    accuracy: float = 0.0
    state: Any = field(default=None, repr=False)


def draw(count: int, seed: int = 0) -> list[Trial]:
    rng = np.random.default_rng(seed)
    return [
        Trial(number, 10 ** rng.uniform(-3, 0), int(rng.choice([16, 32, 64])), float(rng.choice([0.0, 0.9])))
        for number in range(count)
    ]


def make_module(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def climb(trial: Trial, train: sb.DataSet, validation: sb.DataSet) -> Trial:
    """Train a trial to the end of its rung; runs on a worker."""
    optimizer = functools.partial(torch.optim.SGD, lr=trial.rate, momentum=trial.momentum)
    network = sb.MultiLayerNetwork(functools.partial(make_module, trial.width), nn.CrossEntropyLoss(), optimizer)
    done = RUNGS[trial.rung - 1] if trial.rung else 0
    if trial.state is not None:
        network.load_state(trial.state)
    master = sb.ParameterAveragingTrainingMaster(workers=1, batch_size_per_worker=32, rng_seed=trial.number)
    with sb.Trainer(network, master, backend="local") as trainer:  # this task's own slot
        result = trainer.fit(train, RUNGS[trial.rung] - done, validation, progress=False)
    accuracy = result.epochs[-1].validation["accuracy"]
    return Trial(trial.number, trial.rate, trial.width, trial.momentum, trial.rung, accuracy, network.state())


def search(client: Client, trials: list[Trial]) -> list[list[Trial]]:
    """Return the trials of each rung."""
    train, validation = client.scatter(load(), broadcast=True)
    start = functools.partial(client.submit, climb, pure=False)
    running = as_completed([start(trial, train, validation) for trial in trials])
    rungs: list[list[Trial]] = [[] for _ in RUNGS]
    gone_on = [set[int]() for _ in RUNGS]
    for future in running:
        trial = future.result()
        rungs[trial.rung].append(trial)
        if trial.rung == len(RUNGS) - 1:
            continue
        best = sorted(rungs[trial.rung], key=lambda one: -one.accuracy)[: len(rungs[trial.rung]) // SHARE]
        for one in best:
            if one.number not in gone_on[one.rung]:
                gone_on[one.rung].add(one.number)
                following = Trial(one.number, one.rate, one.width, one.momentum, one.rung + 1, state=one.state)
                running.add(start(following, train, validation))
    return rungs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scheduler", help="its address; by default a cluster of two workers is started here")
    parser.add_argument("--trials", type=int, default=20)
    args = parser.parse_args()
    cluster = {"address": args.scheduler} if args.scheduler else {"n_workers": 2, "threads_per_worker": 1}
    with Client(**cluster) as client:
        rungs = search(client, draw(args.trials))
    epochs = sum(len(rung) * (end - start) for rung, start, end in zip(rungs, (0, *RUNGS), RUNGS, strict=False))
    for rung, end in zip(rungs, RUNGS, strict=True):
        print(f"{len(rung):2} trials trained {end} epochs")
    print(f"{epochs} epochs instead of {args.trials * RUNGS[-1]}")
    best = max((trial for rung in rungs for trial in rung), key=lambda trial: trial.accuracy)
    print(f"best: {best.number}, learning rate {best.rate:.3g}, width {best.width}, momentum {best.momentum}")
    print(f"accuracy {best.accuracy:.3f}")


if __name__ == "__main__":
    main()
