"""Validation beside training against validation between epochs, on two slots of which one trains.

python tests/benchmarks/validation.py [--runs 5] [--backend local] [--master averaging]

Prints epochs/hour of both and their ratio. So many rows are validated that this takes one slot about as long as the
epoch's training, where there is most to gain. Between epochs averaging validates on both slots, sharing on that of its
member: of 1.5 and 2 such times, one is left at best. Two cores must be free.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import BATCH, OPTIMIZERS, load_digits, make_module, paired, print_ratio
from torch import nn

import strombus as sb
from strombus.executors import resolve
from strombus.executors.base import Executor

EPOCHS = 4


def master_of(name: str) -> sb.TrainingMaster:
    options = {"workers": 1, "batch_size_per_worker": BATCH, "rng_seed": 0}
    if name == "averaging":
        return sb.ParameterAveragingTrainingMaster(averaging_frequency=20, **options)
    return sb.SharedTrainingMaster(**options)


def speed(executor: Executor, master: str, train: str, validation: str, mode: str) -> float:
    """Return the epochs in an hour."""
    network = sb.MultiLayerNetwork(make_module, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"])
    trainer = sb.Trainer(network, master_of(master), backend=executor)
    started = time.perf_counter()
    trainer.fit(train, EPOCHS, validation, progress=False, validation_mode=mode)
    return 3600 * EPOCHS / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--backend", default="local")
    parser.add_argument("--master", choices=["averaging", "sharing"], default="averaging")
    parser.add_argument("--rows", type=int, default=9000)
    parser.add_argument("--share", type=float, default=1.5, help="rows of validation for each that is trained")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, resolve(args.backend, 2) as executor:
        paths = [str(Path(folder) / name) for name in ("train", "validation")]
        for path, rows in zip(paths, (args.rows, int(args.rows * args.share)), strict=True):
            sb.data.export(load_digits(None, rows), path, progress=False, backend="local")
        run = partial(speed, executor, args.master, *paths)
        run("inline"), run("async")  # processes start, and read the data once
        ours, peer, ratios = paired(args.runs, partial(run, "async"), partial(run, "inline"))
    what = f"{args.master} on {args.backend}, validation beside training / between epochs"
    print_ratio(what, ours, peer, ratios, "epochs/h", "> 1 where a slot is free")


if __name__ == "__main__":
    main()
