"""Where the time of a training goes, as a page and as a table, from an RDD on Spark or on Dask.

python examples/training_stats.py --backend dask
python examples/training_stats.py --backend tcp://scheduler:8786 --export-dir /shared
spark-submit --master spark://host:7077 examples/training_stats.py --backend spark --export-dir /shared
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
    parser.add_argument("--batch-size-per-worker", type=int, default=8)
    parser.add_argument("--num-epochs", type=int, default=2)
    parser.add_argument("--export-dir", help="where the fit exports to, reached by every worker")
    parser.add_argument("--output-path", default="training-stats.html", help="the page")
    return parser.parse_args(argv)


def make_context(backend: str) -> Any:
    if backend == "spark":
        from pyspark import SparkContext

        return SparkContext.getOrCreate()
    return DaskSparkContext(None if backend == "dask" else backend)


def make_network() -> sb.MultiLayerNetwork:
    torch.manual_seed(12345)
    module = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return sb.MultiLayerNetwork(module, nn.CrossEntropyLoss(), functools.partial(torch.optim.Adam, lr=5e-3))


def main(argv: Sequence[str] | None = None) -> sb.MultiLayerNetwork:
    args = parse(argv)
    size = args.batch_size_per_worker
    images, labels = load_digits(return_X_y=True)
    digits = sb.DataSet((images / 16).astype(np.float32), labels)
    network = make_network()
    master = sb.ParameterAveragingTrainingMaster(
        averaging_frequency=3,
        worker_prefetch_num_batches=2,
        batch_size_per_worker=size,
        export_directory=args.export_dir,
        collect_training_stats=True,
        rng_seed=12345,
    )
    with make_context(args.backend) as sc:
        rows = sc.parallelize([digits[i : i + size] for i in range(0, len(digits), size)])
        with sb.Trainer(network, master, backend=sc) as trainer:
            trainer.fit(rows, epochs=args.num_epochs)
            print(trainer.stats.as_string())
            trainer.stats.to_html(args.output_path)
    return network


if __name__ == "__main__":
    main()
