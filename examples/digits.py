"""Handwritten digits with an MLP or a small CNN, by averaging or by sharing updates, on any backend.

python examples/digits.py --backend local
python examples/digits.py --backend dask --master sharing
python examples/digits.py --backend dask --model cnn
python examples/digits.py --backend tcp://scheduler:8786
spark-submit --master spark://host:7077 examples/digits.py --backend spark
"""

import argparse
import functools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import strombus as sb


def make_mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def make_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def load() -> tuple[sb.DataSet, sb.DataSet]:
    """Return (train, test); features of shape (n, 1, 8, 8) in 0..1."""
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(features))
    features = (features[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    digits = sb.DataSet(features, labels[order])
    return digits[:1437], digits[1437:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="local", help="local, dask, spark or a scheduler's address")
    parser.add_argument("--model", choices=["mlp", "cnn"], default="mlp")
    parser.add_argument("--master", choices=["averaging", "sharing"], default="averaging")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size-per-worker", type=int, default=32)
    parser.add_argument("--averaging-frequency", type=int, default=5, help="minibatches between two averagings")
    parser.add_argument("--share", type=float, default=0.03, help="how much of an update is sent, by sharing")
    parser.add_argument("--save", help="where to write the trained network, a .safetensors file")
    args = parser.parse_args()

    network = sb.MultiLayerNetwork(
        module=make_cnn if args.model == "cnn" else make_mlp,
        loss=nn.CrossEntropyLoss(),
        optimizer=functools.partial(torch.optim.Adam, lr=2e-3),
    )
    options = {"workers": args.workers, "batch_size_per_worker": args.batch_size_per_worker, "rng_seed": 0}
    if args.master == "averaging":
        master = sb.ParameterAveragingTrainingMaster(averaging_frequency=args.averaging_frequency, **options)
    else:
        algorithm = sb.AdaptiveThresholdAlgorithm(max_target_sparsity=args.share)
        master = sb.SharedTrainingMaster(threshold_algorithm=algorithm, **options)
    train, test = load()
    with sb.Trainer(network, master, backend=args.backend) as trainer:
        trainer.fit(train, epochs=args.epochs, validation=test)
        print(trainer.evaluate(test).stats())
    if args.save:
        network.save(args.save)


if __name__ == "__main__":
    main()
