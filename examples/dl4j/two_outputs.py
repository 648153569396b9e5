"""A graph with two outputs, which digit it is and how much ink it took, written as for Deeplearning4j on Spark.

python examples/dl4j/two_outputs.py -dask
python examples/dl4j/two_outputs.py -useSparkLocal true
spark-submit --master spark://host:7077 examples/dl4j/two_outputs.py -useSparkLocal false
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
from strombus.compat.dl4j import (
    DaskSparkContext,
    MultiDataSet,
    ParameterAveragingTrainingMaster,
    RDDTrainingApproach,
    SparkComputationGraph,
    SparkUtils,
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-useSparkLocal", choices=["true", "false"], default="true", help="false: as spark-submit says")
    parser.add_argument("-dask", nargs="?", const="", help="a Dask scheduler's address; without one, a cluster here")
    parser.add_argument("-batchSizePerWorker", type=int, default=16)
    parser.add_argument("-numEpochs", type=int, default=5)
    parser.add_argument("-averagingFrequency", type=int, default=5, help="minibatches between two averagings")
    return parser.parse_args(argv)


def make_context(args: argparse.Namespace) -> Any:
    if args.dask is not None:
        return DaskSparkContext(args.dask or None)
    from pyspark import SparkConf, SparkContext

    conf = SparkConf().setAppName("Digit and ink")
    if args.useSparkLocal == "true":
        conf.setMaster("local[*]")
    return SparkContext.getOrCreate(conf)


def load() -> tuple[MultiDataSet, MultiDataSet]:
    """Return (train, test): pixels of shape (n, 64); as labels the digit, and the mean of its pixels in 0..1."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    pixels = (images[order] / 16).astype(np.float32)
    rows = MultiDataSet([pixels], [digits[order], pixels.mean(axis=1, keepdims=True)])
    return rows[:1437], rows[1437:]


def batches(rows: MultiDataSet, size: int) -> list[MultiDataSet]:
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


def ink_errors(row: tuple[MultiDataSet, tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Return by how much the second output is off, for each row of one object."""
    labelled, (_, ink) = row
    return np.abs(labelled.getLabels(1) - ink).ravel().tolist()


def main(argv: Sequence[str] | None = None) -> sb.ComputationGraph:
    args = parse(argv)
    train, test = load()
    training_master = (
        ParameterAveragingTrainingMaster.Builder(args.batchSizePerWorker)
        .averagingFrequency(args.averagingFrequency)
        .workerPrefetchNumBatches(2)
        .batchSizePerWorker(args.batchSizePerWorker)
        .rddTrainingApproach(RDDTrainingApproach.Direct)
        .rngSeed(12345)
        .build()
    )
    with make_context(args) as sc:
        train_data = sc.parallelize(batches(train, args.batchSizePerWorker))
        test_data = sc.parallelize(batches(test, args.batchSizePerWorker))

        spark_graph = SparkComputationGraph(sc, make_graph(), training_master)
        for epoch in range(args.numEpochs):
            spark_graph.fitMultiDataSet(train_data)
            print(f"Completed epoch {epoch}, score {spark_graph.getScore():.4f}")
        print(spark_graph.evaluateMDS(test_data).stats())

        numbered = SparkUtils.indexedRDD(test_data)
        outputs = spark_graph.feedForwardWithKey(numbered.mapValues(MultiDataSet.getFeatures), 64)
        print(f"mean error of the ink {numbered.join(outputs).values().flatMap(ink_errors).mean():.4f}")
        training_master.deleteTempFiles(sc)
    return spark_graph.getNetwork()


if __name__ == "__main__":
    main()
