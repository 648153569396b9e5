"""Evaluate a saved network on a dataset, without training, on any backend.

python examples/mnist_mlp.py --backend dask --output-path mnist
python examples/evaluate_only.py --backend dask --model-path mnist/network.safetensors --data-path mnist/test.zarr
python examples/evaluate_only.py --model-path mnist/network.safetensors --data-path mnist/test.zarr
"""

import argparse
from collections.abc import Sequence

from torch import nn

import strombus as sb


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="local", help="local, dask, spark or a Dask scheduler's address")
    parser.add_argument("--model-path", required=True, help="what network.save wrote, on this machine")
    parser.add_argument("--data-path", required=True, help="a dataset that every worker reaches")
    parser.add_argument("--minibatch", type=int, default=64)
    parser.add_argument("--eval-workers", type=int, default=4, help="model copies at work in one process")
    return parser.parse_args(argv)


def make_network(pixels: int) -> sb.MultiLayerNetwork:
    """Return the network of mnist_mlp.py: a file holds values, its module is code."""
    module = nn.Sequential(nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 10))
    return sb.MultiLayerNetwork(module, nn.CrossEntropyLoss())


def main(argv: Sequence[str] | None = None) -> sb.Evaluation:
    args = parse(argv)
    (pixels,) = sb.data.open_dataset(args.data_path).columns["features"].shape
    network = make_network(pixels).load(args.model_path)
    with sb.Trainer(network, backend=args.backend) as trainer:
        metrics = [sb.Evaluation(), sb.ROCMultiClass()]
        evaluation, roc = trainer.do_evaluation(args.data_path, metrics, args.minibatch, args.eval_workers)
    print(evaluation.stats())
    print(f"mean area under the curves {roc.calculate_average_auc():.4f}")
    return evaluation


if __name__ == "__main__":
    main()
