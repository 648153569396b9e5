"""Twenty trials of a digits network by Optuna, which prunes those that lag behind: `pip install strombus[search]`.

python examples/search_optuna.py
python examples/search_optuna.py --backend tcp://scheduler:8786
"""

import argparse
import functools

import numpy as np
import optuna
import torch
from sklearn.datasets import load_digits
from torch import nn

import strombus as sb
from strombus.executors import resolve
from strombus.executors.base import Executor

EPOCHS = 9


def load() -> tuple[sb.DataSet, sb.DataSet]:
    """Return (train, validation); features of shape (n, 64) in 0..1."""
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(features))
    digits = sb.DataSet((features[order] / 16).astype(np.float32), labels[order])
    return digits[:1437], digits[1437:]


class Prune(sb.Callback):
    """Report each epoch's accuracy, and end a fit that the study gives up."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial, self.pruned = trial, False

    def on_epoch_end(self, record: sb.EpochRecord) -> bool:
        self.trial.report(record.validation["accuracy"], record.epoch)
        self.pruned = self.trial.should_prune()
        return self.pruned


def make_module(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def objective(trial: optuna.Trial, executor: Executor, train: sb.DataSet, validation: sb.DataSet) -> float:
    rate = trial.suggest_float("rate", 1e-3, 1.0, log=True)
    width = trial.suggest_categorical("width", [16, 32, 64])
    optimizer = functools.partial(torch.optim.SGD, lr=rate, momentum=trial.suggest_categorical("momentum", [0.0, 0.9]))
    network = sb.MultiLayerNetwork(functools.partial(make_module, width), nn.CrossEntropyLoss(), optimizer)
    master = sb.ParameterAveragingTrainingMaster(batch_size_per_worker=32, rng_seed=trial.number)
    prune = Prune(trial)
    result = sb.Trainer(network, master, backend=executor).fit(train, EPOCHS, validation, [prune], progress=False)
    if prune.pruned:
        raise optuna.TrialPruned
    return float(result.epochs[-1].validation["accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="local", help="local, dask, spark or a scheduler's address")
    parser.add_argument("--workers", type=int, default=1, help="that train a trial together; trials come one by one")
    parser.add_argument("--trials", type=int, default=20)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)  # so small a network is slower with more
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    with resolve(args.backend, args.workers) as executor:
        data = load()
        study.optimize(lambda trial: objective(trial, executor, *data), n_trials=args.trials)
    pruned = [trial for trial in study.trials if trial.state is optuna.trial.TrialState.PRUNED]
    print(f"{len(pruned)} of {len(study.trials)} trials were pruned")
    print("best:", ", ".join(f"{name} {value}" for name, value in study.best_params.items()))
    print(f"accuracy {study.best_value:.3f}")


if __name__ == "__main__":
    main()
