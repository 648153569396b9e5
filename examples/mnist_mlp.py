"""MNIST with a multi-layer perceptron and parameter averaging, from an RDD on Spark or on Dask.

python examples/mnist_mlp.py --backend dask
python examples/mnist_mlp.py --backend tcp://scheduler:8786
spark-submit --master spark://host:7077 examples/mnist_mlp.py --backend spark
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
from strombus.compat.dl4j import DaskSparkContext


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="dask", help="dask, spark or a Dask scheduler's address")
    parser.add_argument("--batch-size-per-worker", type=int, default=16)
    parser.add_argument("--num-epochs", type=int, default=2)
    parser.add_argument("--averaging-frequency", type=int, default=5, help="minibatches between two averagings")
    parser.add_argument("--data-path", type=Path, help="a folder of MNIST's four IDX files; else scikit-learn's digits")
    parser.add_argument("--output-path", help="where to leave the network and the test data, for evaluate_only.py")
    return parser.parse_args(argv)


def make_context(backend: str) -> Any:
    if backend == "spark":
        from pyspark import SparkContext

        return SparkContext.getOrCreate()
    return DaskSparkContext(None if backend == "dask" else backend)


def load(folder: Path | None) -> tuple[sb.DataSet, sb.DataSet]:
    """Return (train, test); features of shape (n, pixels) in 0..1."""
    if folder is not None:
        return read_mnist(folder, "train"), read_mnist(folder, "t10k")
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    digits = sb.DataSet((images[order] / 16).astype(np.float32), labels[order])
    return digits[:1437], digits[1437:]


def read_mnist(folder: Path, part: str) -> sb.DataSet:
    images, labels = (read_idx(next(folder.glob(f"{part}-{kind}*"))) for kind in ("images", "labels"))
    return sb.DataSet(images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int64))


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
    size = args.batch_size_per_worker
    train, test = load(args.data_path)
    network = make_network(train.features.shape[1])
    master = sb.ParameterAveragingTrainingMaster(
        averaging_frequency=args.averaging_frequency,
        worker_prefetch_num_batches=2,
        batch_size_per_worker=size,
        rdd_training_approach="Direct",
        rng_seed=12345,
    )
    with make_context(args.backend) as sc:
        train_rows = sc.parallelize([train[i : i + size] for i in range(0, len(train), size)])
        test_rows = sc.parallelize([test[i : i + size] for i in range(0, len(test), size)])

        with sb.Trainer(network, master, backend=sc) as trainer:
            trainer.fit(train_rows, epochs=args.num_epochs)
            print(trainer.evaluate(test_rows).stats())

        if args.output_path:
            network.save(f"{args.output_path}/network.safetensors")
            sb.data.export(test_rows, f"{args.output_path}/test.zarr", backend=sc)
    return network


if __name__ == "__main__":
    main()
