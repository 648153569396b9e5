"""A graph with two outputs, which digit it is and how much ink it took, from an RDD on Spark or on Dask.

python examples/two_outputs.py --backend dask
python examples/two_outputs.py --backend tcp://scheduler:8786
spark-submit --master spark://host:7077 examples/two_outputs.py --backend spark
"""

import argparse
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import strombus as sb
from strombus.compat.dl4j import DaskSparkContext


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="dask", help="dask, spark or a Dask scheduler's address")
    parser.add_argument("--batch-size-per-worker", type=int, default=16)
    parser.add_argument("--num-epochs", type=int, default=5)
    parser.add_argument("--averaging-frequency", type=int, default=5, help="minibatches between two averagings")
    return parser.parse_args(argv)


def make_context(backend: str) -> Any:
    if backend == "spark":
        from pyspark import SparkContext

        return SparkContext.getOrCreate()
    return DaskSparkContext(None if backend == "dask" else backend)


def load() -> tuple[sb.MultiDataSet, sb.MultiDataSet]:
    """Return (train, test): pixels of shape (n, 64); as labels the digit, and the mean of its pixels in 0..1."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    pixels = (images[order] / 16).astype(np.float32)
    rows = sb.MultiDataSet([pixels], [digits[order], pixels.mean(axis=1, keepdims=True)])
    return rows[:1437], rows[1437:]


def batches(rows: sb.MultiDataSet, size: int) -> list[sb.MultiDataSet]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


class DigitAndInk(nn.Module):
    """See a digit through shared layers, then through one layer for each output."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU())
        self.digit, self.ink = nn.Linear(32, 10), nn.Linear(32, 1)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.shared(pixels)
        return self.digit(seen), self.ink(seen)


def make_graph() -> sb.ComputationGraph:
    torch.manual_seed(12345)
    return sb.ComputationGraph(
        DigitAndInk(),
        loss=[nn.CrossEntropyLoss(), nn.MSELoss()],
        optimizer=functools.partial(torch.optim.Adam, lr=5e-3),
        loss_weights=[1.0, 10.0],
    )


def main(argv: Sequence[str] | None = None) -> sb.ComputationGraph:
    args = parse(argv)
    train, test = load()
    graph = make_graph()
    master = sb.ParameterAveragingTrainingMaster(
        averaging_frequency=args.averaging_frequency,
        worker_prefetch_num_batches=2,
        batch_size_per_worker=args.batch_size_per_worker,
        rdd_training_approach="Direct",
        rng_seed=12345,
    )
    with make_context(args.backend) as sc:
        train_rows = sc.parallelize(batches(train, args.batch_size_per_worker))
        test_rows = sc.parallelize(batches(test, args.batch_size_per_worker))

        with sb.Trainer(graph, master, backend=sc) as trainer:
            trainer.fit(train_rows, epochs=args.num_epochs)
            metrics = {0: [sb.Evaluation()], 1: [sb.RegressionEvaluation(column_names=["ink"])]}
            for output in trainer.do_evaluation(test_rows, metrics).values():
                print(output[0].stats())
    return graph


if __name__ == "__main__":
    main()
