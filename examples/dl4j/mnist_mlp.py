"""MNIST with a multi-layer perceptron and parameter averaging, written as for Deeplearning4j on Spark.

python examples/dl4j/mnist_mlp.py -dask
python examples/dl4j/mnist_mlp.py -useSparkLocal true
spark-submit --master spark://host:7077 examples/dl4j/mnist_mlp.py -useSparkLocal false
"""

import argparse
import functools
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import strombus as sb
from strombus.compat.dl4j import (
    DaskSparkContext,
    DataSet,
    ParameterAveragingTrainingMaster,
    RDDTrainingApproach,
    SparkDl4jMultiLayer,
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-useSparkLocal", choices=["true", "false"], default="true", help="false: as spark-submit says")
    parser.add_argument("-dask", nargs="?", const="", help="a Dask scheduler's address; without one, a cluster here")
    parser.add_argument("-batchSizePerWorker", type=int, default=16)
    parser.add_argument("-numEpochs", type=int, default=2)
    parser.add_argument("-averagingFrequency", type=int, default=5, help="minibatches between two averagings")
    parser.add_argument("-dataPath", type=Path, help="a folder of MNIST's four IDX files; else scikit-learn's digits")
    parser.add_argument("-outputPath", help="where to leave the network and the test data, for evaluate_only.py")
    return parser.parse_args(argv)


def make_context(args: argparse.Namespace) -> Any:
    if args.dask is not None:
        return DaskSparkContext(args.dask or None)
    from pyspark import SparkConf, SparkContext

    conf = SparkConf().setAppName("MNIST MLP")
    if args.useSparkLocal == "true":
        conf.setMaster("local[*]")
    return SparkContext.getOrCreate(conf)


def load(folder: Path | None) -> tuple[DataSet, DataSet]:
    """Return (train, test); features of shape (n, pixels) in 0..1."""
    if folder is not None:
        return read_mnist(folder, "train"), read_mnist(folder, "t10k")
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    digits = DataSet((images[order] / 16).astype(np.float32), labels[order])
    return digits[:1437], digits[1437:]


def read_mnist(folder: Path, part: str) -> DataSet:
    images, labels = (read_idx(next(folder.glob(f"{part}-{kind}*"))) for kind in ("images", "labels"))
    return DataSet(images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int64))


def read_idx(path: Path) -> np.ndarray:
    """Read a file of MNIST's, gzipped or not: number of axes in the fourth byte, their lengths, then pixels."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lengths = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + lengths.nbytes).reshape(lengths)


def make_network(pixels: int) -> sb.MultiLayerNetwork:
    torch.manual_seed(12345)
    module = nn.Sequential(nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 10))
    return sb.MultiLayerNetwork(module, nn.CrossEntropyLoss(), functools.partial(torch.optim.Adam, lr=5e-3))


def main(argv: Sequence[str] | None = None) -> sb.MultiLayerNetwork:
    args = parse(argv)
    train, test = load(args.dataPath)
    network = make_network(train.numInputs())
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
        train_data = sc.parallelize(train.batchBy(args.batchSizePerWorker))
        test_data = sc.parallelize(test.batchBy(args.batchSizePerWorker))

        spark_network = SparkDl4jMultiLayer(sc, network, training_master)
        for epoch in range(args.numEpochs):
            spark_network.fit(train_data)
            print(f"Completed epoch {epoch}, score {spark_network.getScore():.4f}")
        print(spark_network.evaluate(test_data).stats())

        if args.outputPath:
            network.save(f"{args.outputPath}/network.safetensors")
            sb.data.export(test_data, f"{args.outputPath}/test.zarr", backend=sc, progress=False)
        training_master.deleteTempFiles(sc)
    return network


if __name__ == "__main__":
    main()
