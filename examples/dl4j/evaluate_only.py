"""Evaluate a saved network on a dataset, without training, written as for Deeplearning4j on Spark.

python examples/dl4j/mnist_mlp.py -dask -outputPath mnist
python examples/dl4j/evaluate_only.py -dask -modelPath mnist/network.safetensors -dataPath mnist/test.zarr
python examples/dl4j/evaluate_only.py -modelPath mnist/network.safetensors -dataPath mnist/test.zarr
"""

import argparse
from collections.abc import Sequence
from typing import Any

from torch import nn

import strombus as sb
from strombus.compat.dl4j import DaskSparkContext, Evaluation, ROCMultiClass, SparkDl4jMultiLayer


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-useSparkLocal", choices=["true", "false"], default="true", help="false: as spark-submit says")
    parser.add_argument("-dask", nargs="?", const="", help="a Dask scheduler's address; without one, a cluster here")
    parser.add_argument("-modelPath", required=True, help="what network.save wrote, on this machine")
    parser.add_argument("-dataPath", required=True, help="a dataset that every worker reaches")
    parser.add_argument("-minibatch", type=int, default=64)
    parser.add_argument("-evalWorkers", type=int, default=4, help="model copies at work in one process")
    return parser.parse_args(argv)


def make_context(args: argparse.Namespace) -> Any:
    if args.dask is not None:
        return DaskSparkContext(args.dask or None)
    from pyspark import SparkConf, SparkContext

    conf = SparkConf().setAppName("Evaluate only")
    if args.useSparkLocal == "true":
        conf.setMaster("local[*]")
    return SparkContext.getOrCreate(conf)


def make_network(pixels: int) -> sb.MultiLayerNetwork:
    """Return the network of mnist_mlp.py: a file holds values, its module is code."""
    module = nn.Sequential(nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 10))
    return sb.MultiLayerNetwork(module, nn.CrossEntropyLoss())


def main(argv: Sequence[str] | None = None) -> Evaluation:
    args = parse(argv)
    (pixels,) = sb.data.open_dataset(args.dataPath).columns["features"].shape
    network = make_network(pixels).load(args.modelPath)
    with make_context(args) as sc:
        spark_network = SparkDl4jMultiLayer(sc, network)
        metrics = Evaluation(), ROCMultiClass()
        evaluation, roc = spark_network.doEvaluation(args.dataPath, args.evalWorkers, args.minibatch, *metrics)
    print(evaluation.stats())
    print(f"mean area under the curves {roc.calculateAverageAUC():.4f}")
    return evaluation


if __name__ == "__main__":
    main()
