"""Where the time of a training goes, as a page and as keys, written as for Deeplearning4j on Spark.

python examples/dl4j/training_stats.py -dask
python examples/dl4j/training_stats.py -useSparkLocal true
spark-submit --master spark://host:7077 examples/dl4j/training_stats.py -useSparkLocal false -exportDirectory /shared
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
    DataSet,
    ParameterAveragingTrainingMaster,
    SparkDl4jMultiLayer,
    StatsUtils,
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-useSparkLocal", choices=["true", "false"], default="true", help="false: as spark-submit says")
    parser.add_argument("-dask", nargs="?", const="", help="a Dask scheduler's address; without one, a cluster here")
    parser.add_argument("-batchSizePerWorker", type=int, default=8)
    parser.add_argument("-numEpochs", type=int, default=2)
    parser.add_argument("-exportDirectory", help="where each fit exports to, reached by every worker")
    parser.add_argument("-outputPath", default="SparkStats.html", help="the page")
    return parser.parse_args(argv)


def make_context(args: argparse.Namespace) -> Any:
    if args.dask is not None:
        return DaskSparkContext(args.dask or None)
    from pyspark import SparkConf, SparkContext

    conf = SparkConf().setAppName("Training stats")
    if args.useSparkLocal == "true":
        conf.setMaster("local[*]")
    return SparkContext.getOrCreate(conf)


def make_network() -> sb.MultiLayerNetwork:
    torch.manual_seed(12345)
    module = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return sb.MultiLayerNetwork(module, nn.CrossEntropyLoss(), functools.partial(torch.optim.Adam, lr=5e-3))


def main(argv: Sequence[str] | None = None) -> sb.MultiLayerNetwork:
    args = parse(argv)
    images, labels = load_digits(return_X_y=True)
    digits = DataSet((images / 16).astype(np.float32), labels)
    training_master = (
        ParameterAveragingTrainingMaster.Builder(args.batchSizePerWorker)
        .averagingFrequency(3)
        .workerPrefetchNumBatches(2)
        .batchSizePerWorker(args.batchSizePerWorker)
        .exportDirectory(args.exportDirectory)
        .rngSeed(12345)
        .build()
    )
    with make_context(args) as sc:
        train_data = sc.parallelize(digits.batchBy(args.batchSizePerWorker))
        spark_network = SparkDl4jMultiLayer(sc, make_network(), training_master)
        spark_network.setCollectTrainingStats(True)
        for _ in range(args.numEpochs):
            spark_network.fit(train_data)

        stats = spark_network.getSparkTrainingStats()
        for key in sorted(stats.getKeySet()):
            events = stats.getValue(key)
            print(f"{key}: {len(events)} times, {sum(event.seconds for event in events):.3f} s")
        StatsUtils.exportStatsAsHtml(stats, args.outputPath, sc)
        training_master.deleteTempFiles(sc)
    return spark_network.getNetwork()


if __name__ == "__main__":
    main()
