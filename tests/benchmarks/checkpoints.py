"""The demo's training with a checkpoint in every step against the same without any, two workers on Dask.

python tests/benchmarks/checkpoints.py [--runs 5] [--epochs 20]

Prints examples/s of both and their ratio for each master, and how many checkpoints a fit made.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from common import paired, print_ratio
from distributed import Client, LocalCluster

import strombus as sb
from strombus.demo import digits, make_network
from strombus.fitting.checkpointing import Keeper

MASTERS = {
    "averaging": lambda: sb.ParameterAveragingTrainingMaster(batch_size_per_worker=16, workers=2, rng_seed=0),
    "sharing": lambda: sb.SharedTrainingMaster(batch_size_per_worker=16, workers=2, rng_seed=0),
}
CASES = {
    "a checkpoint every step": (sb.CheckpointConfig(every="1step"), ">= 0.90"),
    "the same, none put off": (sb.CheckpointConfig(every="1step", max_share=1), ""),
}


def fit(client: Client, folder: str, master: str, epochs: int, config: sb.CheckpointConfig | None) -> float:
    """Train and return examples/s, the first epoch left out."""
    options: dict[str, Any] = {}
    if config is not None:
        options = {"name": secrets.token_hex(4), "storage_path": folder, "checkpoint": config}
    with sb.Trainer(make_network(), MASTERS[master](), client) as trainer:
        result = trainer.fit(f"{folder}/digits.zarr", epochs, progress=False, **options)
    records = result.epochs[1:]
    return sum(record.examples for record in records) / sum(record.seconds for record in records)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args(arguments)
    made = count_made()
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sb.data.export(digits()[0], f"{folder}/digits.zarr", batch_size=32, progress=False)
        for master in MASTERS:
            fit(client, folder, master, 2, None)
            for case, (config, target) in CASES.items():
                made.clear()
                figures = paired(
                    args.runs,
                    lambda m=master, c=config: fit(client, folder, m, args.epochs, c),
                    lambda m=master: fit(client, folder, m, args.epochs, None),
                )
                print_ratio(f"demo, {master}, {case}: without", *figures, "examples/s", target)
                print(f"  {len(made) / args.runs:.0f} checkpoints a fit")


def count_made() -> list[int]:
    """Return a list that gets the step of each checkpoint that is finished."""
    made: list[int] = []
    finish = Keeper._finish

    def counted(keeper: Keeper, draft: Any, *others: Any, **more: Any) -> None:
        finish(keeper, draft, *others, **more)
        made.append(draft.step)

    Keeper._finish = counted  # type: ignore[method-assign]
    return made


if __name__ == "__main__":
    main()
