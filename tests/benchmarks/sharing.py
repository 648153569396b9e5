"""Shared training on Dask against loops that never exchange and against torch DDP, on loopback and on slow wires.

python tests/benchmarks/sharing.py [--digits FOLDER] [--network mlp|cnn|transformer] [--optimizer sgd|adam]
    [--places loopback,1000,100] [--peers NAME,...] [--runs 3] [--epochs 3] [--accuracy] [--seeds 5]

Places are "loopback" or Mbit/s between network namespaces (Linux, root). Two members of one thread each;
examples/s of both, the median epoch without the first; run r has seed r. DDP's dense and fp16 runs take few steps
where the wire is slow; their accuracy is the loopback's, for the wire changes none of their sums.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import BATCH, print_ratio
from members import cluster, run_local, run_shared
from network import Wire, loopback, measure_rate, namespaces
from peers import PEERS, Outcome, Plan, run_peer
from workloads import OPTIMIZERS, Workload, make_workload

import strombus as sb

OURS = "shared training"
STAR = "shared training through a hub"
ROWS = 9000
SECONDS = 3.0  # of an epoch that a slow wire cuts short
TARGETS = {
    "loopback": {"silent loops": 0.90, "DDP dense": 1.5},
    "100 Mbit/s": {"silent loops": 0.90, "DDP dense": 25.0, "DDP fp16": 13.0, "DDP PowerSGD rank 1": 1.9},
}
ONE_WORKER = 0.85
SHARE_OF_BOUND = 0.8
BUSY = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    args = read_options(arguments)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")  # for all members alike
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"others use this machine (load average {load:.1f}): the ratios below may be theirs")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces and programs are ended
    workload = make_workload(args.network, args.digits, ROWS)
    plan = Plan(workload, args.optimizer, 0, args.epochs)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.zarr")
        sb.data.export((workload.features, workload.labels), path, batch_size=BATCH, progress=False)
        if args.accuracy:
            compare_accuracy(plan, path, Path(folder), args.seeds)
            return
        for name in args.places:
            with place(name) as wire:
                compare_speed(wire, plan, path, Path(folder), args)
        if OURS in args.peers:
            compare_one_worker(plan, path, args.runs)


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name.strip() for name in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", help="folder with the IDX files of real digits; made data without")
    parser.add_argument("--network", choices=("mlp", "cnn", "transformer"), default="mlp")
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="sgd")
    parser.add_argument("--places", type=names, default=["loopback", "100"])
    parser.add_argument("--peers", type=names, default=[OURS, *PEERS])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--accuracy", action="store_true", help="compare accuracies over seeds, SGD and Adam, alone")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args(arguments)
    if unknown := set(args.peers) - {OURS, STAR, *PEERS}:
        parser.error(f"unknown peers {sorted(unknown)}; known: {[OURS, STAR, *PEERS]}")
    if args.epochs < 2 or args.runs < 1 or args.seeds < 2:
        parser.error("the first epoch is left out: --epochs 2 at least; --runs 1, --seeds 2 at least")
    return args


@contextlib.contextmanager
def place(name: str) -> Iterator[Wire]:
    """Give the wire that a place's name stands for, its rate measured and printed."""
    if name == "loopback":
        yield loopback(2)
        return
    with namespaces(2, int(name)) as wire:
        reached = measure_rate(wire) / 1e6
        print(f"{wire.name}: a plain socket reaches {reached:.1f} Mbit/s, congestion control {wire.congestion_control}")
        yield wire


def compare_speed(wire: Wire, plan: Plan, path: str, folder: Path, args: argparse.Namespace) -> None:
    """Run all peers in turn, back and forth, and print the place's rows."""
    found: dict[str, list[Outcome]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        address = ""
        if {OURS, STAR} & set(args.peers):
            address = stack.enter_context(cluster(wire, folder / wire.name.replace("/", " a ")))
        for run in range(args.runs):
            seeded = replace(plan, seed=run)
            for name in args.peers[:: -1 if run % 2 else 1]:
                if name in (OURS, STAR):
                    outcome = run_shared(address, wire, path, seeded, "star" if name == STAR else "auto")
                else:
                    outcome = run_peer(name, wire, shorten(seeded, name, wire))
                found[name].append(outcome)
    headline = args.network == "mlp" and args.optimizer == "sgd"
    report(wire, found, TARGETS.get(wire.name, {}) if headline else {}, valid=reaches_bound(wire, plan, found))
    for name, outcomes in found.items():
        print_outcome(wire, name, outcomes, shortened=shorten(plan, name, wire).limit is not None)


def shorten(plan: Plan, peer: str, wire: Wire) -> Plan:
    """End the epochs of a peer early that the wire makes longer than some seconds."""
    size = {"DDP dense": 1.0, "DDP fp16": 0.5}.get(peer)
    if size is None or wire.rate is None:
        return plan
    limit = max(6, math.ceil(SECONDS / (size * step_seconds(wire, plan.workload))))
    full = -(-len(plan.workload.features) // len(wire.members) // BATCH)
    return plan if limit >= full else replace(plan, epochs=2, limit=limit)


def step_seconds(wire: Wire, workload: Workload) -> float:
    """Return how long the wire alone needs for a dense step of float32: 2 (N-1)/N of the parameters each way."""
    members = len(wire.members)
    return 2 * (members - 1) / members * workload.bytes * 8 / (wire.rate or math.inf)


def reaches_bound(wire: Wire, plan: Plan, found: Mapping[str, Sequence[Outcome]]) -> bool:
    """Say whether dense DDP is as fast as the wire lets it be, where the wire is what limits it."""
    if wire.rate is None or not {"DDP dense", "silent loops"} <= set(found):
        return True
    bound = len(wire.members) * BATCH / step_seconds(wire, plan.workload)
    dense, loops = (statistics.median(o.speed for o in found[name]) for name in ("DDP dense", "silent loops"))
    limits = bound < loops / 2
    print(f"{wire.name}: dense DDP reaches {dense / bound:.2f}x of the wire's bound, {bound:,.0f} examples/s")
    return not limits or dense >= SHARE_OF_BOUND * bound


def report(wire: Wire, found: Mapping[str, Sequence[Outcome]], targets: Mapping[str, float], *, valid: bool) -> None:
    """Print a ratio for each peer, run by run against the same run's."""
    if OURS not in found:
        return
    ours = [outcome.speed for outcome in found[OURS]]
    for name in (peer for peer in found if peer != OURS):
        theirs = [outcome.speed for outcome in found[name]]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        valid_here = valid or not name.startswith("DDP")
        verdict = judge(statistics.median(ratios), targets.get(name)) if valid_here else "void: dense DDP is too slow"
        middles = statistics.median(ours), statistics.median(theirs)
        print_ratio(f"{OURS}, {wire.name}: {name}", *middles, ratios, "examples/s", verdict)


def judge(figure: float, target: float | None) -> str:
    """Return the target and whether it is met."""
    return "" if target is None else f">= {target:g} {'met' if figure >= target else 'MISSED'}"


def print_outcome(wire: Wire, name: str, outcomes: Sequence[Outcome], *, shortened: bool = False) -> None:
    """Print the medians of a peer's figures."""
    speed = statistics.median(outcome.speed for outcome in outcomes)
    sent = statistics.median(outcome.bytes_per_step for outcome in outcomes)
    right = statistics.mean(outcome.accuracy for outcome in outcomes)
    scored = "few steps" if shortened else f"accuracy {right:.3f}"
    print(f"  {wire.name + ', ' + name:<56} {speed:>9,.0f} examples/s {sent:>11,.0f} bytes/step {scored}", flush=True)


def compare_one_worker(plan: Plan, path: str, runs: int) -> None:
    """Compare one worker on the local backend with the plain loop."""
    turns: dict[str, Callable[[Plan], Outcome]] = {
        OURS: lambda p: run_local(path, p),
        "plain loop": lambda p: run_peer("silent loops", loopback(1), p),
    }
    found: dict[str, list[float]] = defaultdict(list)
    for run in range(runs):
        for name in list(turns)[:: -1 if run % 2 else 1]:
            found[name].append(turns[name](replace(plan, seed=run)).speed)
    ours, loop = found[OURS], found["plain loop"]
    ratios = [a / b for a, b in zip(ours, loop, strict=True)]
    verdict = judge(statistics.median(ratios), ONE_WORKER)
    middles = statistics.median(ours), statistics.median(loop)
    print_ratio(f"{OURS}, one worker, local: plain loop", *middles, ratios, "examples/s", verdict)


def compare_accuracy(plan: Plan, path: str, folder: Path, seeds: int) -> None:
    """Compare accuracies after equal epochs with dense DDP's, SGD and Adam, and print a row for each."""
    wire = loopback(2)
    with cluster(wire, folder / "accuracy") as address:
        for optimizer in OPTIMIZERS:
            found: dict[str, list[float]] = defaultdict(list)
            for seed in range(seeds):
                seeded = replace(plan, optimizer=optimizer, seed=seed)
                found[OURS].append(run_shared(address, wire, path, seeded).accuracy)
                found["DDP dense"].append(run_peer("DDP dense", wire, seeded).accuracy)
            ours, dense = (f"{statistics.mean(v):.3f}+-{statistics.stdev(v):.3f}" for v in found.values())
            least = statistics.mean(found["DDP dense"]) - statistics.stdev(found["DDP dense"])
            verdict = judge(statistics.mean(found[OURS]), round(least, 4))
            print(f"{OURS}, accuracy, {optimizer}: DDP dense".ljust(58), f"{ours} {dense} {verdict}", flush=True)


if __name__ == "__main__":
    main()
