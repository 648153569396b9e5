"""Averaging against the plain loop (one worker) and against two silent loops (two workers on Dask).

python tests/benchmarks/averaging.py [--digits FOLDER] [--runs 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from common import BATCH, OPTIMIZERS, load_digits, make_module, paired, plain_epochs, print_ratio, silent_loops
from torch import nn

import strombus as sb
from strombus.executors.local import LocalExecutor

EPOCHS = 3


def fit(backend, path: str, optimizer: str, workers: int, frequency: int, epochs: int = EPOCHS) -> float:
    """Train and return examples/s of the median epoch, the first left out."""
    network = sb.MultiLayerNetwork(make_module, nn.CrossEntropyLoss(), OPTIMIZERS[optimizer])
    master = sb.ParameterAveragingTrainingMaster(
        workers=workers, batch_size_per_worker=BATCH, averaging_frequency=frequency, rng_seed=0
    )
    with sb.Trainer(network, master, backend=backend) as trainer:
        result = trainer.fit(path, epochs=epochs, progress=False)
    return statistics.median(record.examples / record.seconds for record in result.epochs[1:])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", help="folder with the IDX files of real digits; made data without")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args(arguments)
    features, labels = load_digits(args.digits)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "digits.zarr")
        sb.data.export((features, labels), path, batch_size=BATCH, progress=False)
        one_worker(path, features, labels, args.runs)
        two_workers(path, features, labels, args.runs)


def one_worker(path, features, labels, runs: int) -> None:
    def loop() -> float:
        return len(features) / statistics.median(plain_epochs(features, labels, "sgd", EPOCHS)[1:])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with LocalExecutor(1) as executor:
        for frequency in (5, 20):
            figures = paired(runs, lambda f=frequency: fit(executor, path, "sgd", 1, f), loop)
            print_ratio(f"one worker, local, frequency {frequency}: plain loop", *figures, "examples/s", ">= 0.97")
    torch.set_num_threads(threads)


def two_workers(path, features, labels, runs: int) -> None:
    from distributed import Client, LocalCluster

    cases = [("sgd", 5, ""), ("sgd", 20, ">= 0.85"), ("momentum", 5, ""), ("momentum", 20, ">= 0.80")]
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for optimizer, frequency, target in cases:
            figures = paired(
                runs,
                lambda o=optimizer, f=frequency: fit(client, path, o, 2, f),
                lambda o=optimizer: silent_loops(features, labels, o, EPOCHS),
            )
            print_ratio(
                f"two workers, Dask, {optimizer}, frequency {frequency}: silent loops", *figures, "examples/s", target
            )


if __name__ == "__main__":
    main()
