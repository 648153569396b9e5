"""Scores, metrics and outputs of a network on all kinds of data, given back in the form in which the data came."""

from __future__ import annotations

import os
import secrets
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain, islice
from typing import Any

import numpy as np
import torch

from strombus.data import LocalStream, NativeCollection, Source, open_source, store
from strombus.data.results import assemble, begin, check_free, end, plan_assembly, publish
from strombus.errors import ConfigurationError, DataError, EmptyDataError, NonFiniteError
from strombus.evaluation import Metric
from strombus.evaluation.request import Request
from strombus.executors.base import Executor, Shared, Task
from strombus.executors.calls import dump, load
from strombus.executors.values import Packed
from strombus.exporting import check_shared, readable_source
from strombus.networks import Network
from strombus.partitioning import DefaultRepartitioner
from strombus.stats import Listening, Relay
from strombus.types import MultiDataSet, Partition
from strombus.worker.evaluating import evaluate_part, merge_metrics
from strombus.worker.heard import Heard, heard, merge_heard
from strombus.worker.inference import (
    InferenceWork,
    Outputs,
    Scores,
    answer_objects,
    answer_part,
    compute_part,
    sum_part,
    write_part,
)
from strombus.worker.items import read_masked_pair, read_pair
from strombus.worker.models import Models
from strombus.worker.passes import Passes
from strombus.worker.scoring import LossSum, ScoringWork, merge_losses

__all__ = ["Inference"]

Path = str | os.PathLike[str]


class Inference:
    """One network on one executor.

    Parameters
    ----------
    network : Network
    executor : Executor
    copies : int
        Model copies that work at the same time in one process.
    directory : path or URI, optional
        Where data that workers cannot reach is written for the time.
    """

    def __init__(self, network: Network, executor: Executor, copies: int, directory: Path | None = None) -> None:
        self.network = network
        self.executor = executor
        self._copies = copies
        self._directory = directory

    @property
    def options(self) -> tuple[int, Path | None]:
        """What another one on the same data takes too."""
        return self._copies, self._directory

    # -- what can be asked ---------------------------------------------------------------------------

    def sum_losses(self, data: Any, batch_size: int) -> LossSum:
        """Return the sums of the loss over all data."""
        with self._opened(data, self._work(Scores(), batch_size)) as (work, parts):
            if not parts:
                return LossSum()
            total: LossSum = self._reduced(sum_part, parts, merge_losses, work)
        return total

    def calculate_score(self, data: Any, average: bool = True, batch_size: int = 64, finite: bool = True) -> float:
        """Return the loss over `data`; see `strombus.Trainer.calculate_score`. `finite` says whether it must be."""
        loss = self.sum_losses(data, batch_size)
        if not loss.examples:
            raise EmptyDataError("the data holds no examples")
        if not any(loss.counts):
            raise DataError(
                f"all of the {loss.examples} examples are masked or have no weight, so that there is nothing to score"
            )
        if finite and loss.problem:
            raise NonFiniteError(loss.problem)
        penalty = self.network.regularization()
        return loss.mean + penalty if average else loss.total + penalty * loss.examples

    def run_metrics(self, data: Any, request: Request, batch_size: int, copies: int | None = None) -> Sequence[Metric]:
        """Return the filled metrics of a request; see `strombus.Trainer.do_evaluation`."""
        copies = self._copies if copies is None else copies
        if copies < 1:
            raise ConfigurationError(f"workers must be at least 1, got {copies}")
        _check_batch_size(batch_size)
        passes = Passes(Models(self.network, copies), batch_size)
        with self._rows(data, batch_size) as (source, parts):
            scoring = ScoringWork(self.network, source, batch_size, request.metrics, request.outputs, passes)
            with self._shared(scoring) as work:
                filled: Sequence[Metric] = self._reduced(evaluate_part, parts, merge_metrics, work)
        return filled

    def score_examples(self, data: Any, regularization: bool, batch_size: int, to: Path | None) -> Any:
        """Return a score for each example; see `strombus.Trainer.score_examples`."""
        penalty = self.network.regularization() if regularization else 0.0
        return self._answer(data, self._work(Scores(penalty), batch_size), to)

    def predict(self, data: Any, batch_size: int, to: Path | None) -> Any:
        """Return the outputs for each example; see `strombus.Trainer.predict`."""
        if _is_vector(data) and to is None:
            outputs = self.network.predict(np.asarray(data)[None])
            return tuple(output[0] for output in outputs) if self.network.several else outputs[0]
        if self.network.several and isinstance(data, list) and all(getattr(one, "ndim", 0) for one in data):
            data = MultiDataSet(data)
        return self._answer(data, self._work(self._outputs(), batch_size), to, whole=True)

    def feed_forward(self, data: Any, masked: bool, batch_size: int, to: Path | None) -> Any:
        """Return the outputs by key; see `strombus.Trainer.feed_forward_with_key`."""
        read = read_masked_pair if masked else read_pair
        work = self._work(self._outputs(), batch_size, read=read)
        source = open_source(data)
        lazy = isinstance(source, NativeCollection) and source.lazy
        if not (isinstance(source, LocalStream) or lazy or source.keyed):
            raise DataError(
                "feed_forward_with_key needs keys: a Bag, an RDD or a list of pairs, a Zarr dataset with an array "
                "keys, or a table with a key column (strombus.data.table); predict takes data without"
            )
        return self._answer(source, work, to)

    def _outputs(self) -> Outputs:
        return Outputs(self.network.several)

    def _work(self, compute: Scores | Outputs, batch_size: int, **options: Any) -> InferenceWork:
        _check_batch_size(batch_size)
        return InferenceWork.of(self.network, self._copies, batch_size, compute, **options)

    # -- in the form in which the data came ------------------------------------------------------------

    def _answer(self, data: Any, work: InferenceWork, to: Path | None, whole: bool = False) -> Any:
        """Return a Bag for a Bag, an RDD for an RDD, a list for keyed objects, arrays for the rest.

        `whole` leaves out a dataset's keys.
        """
        source = open_source(data)
        if to is not None:
            return self._write(source, work, to, whole)
        if isinstance(source, NativeCollection) and source.lazy:
            return self._lazy(source, work)
        if isinstance(source, LocalStream):
            source, keyed = _peeked(source, work.read)
            if keyed:
                parts = _chunks(list(source.objects), work)
                with self._shared(work) as shared:
                    return [answer for part in self._mapped(answer_part, parts, shared) for answer in part]
        return self._arrays(source, work, whole)

    def _lazy(self, collection: NativeCollection, work: InferenceWork) -> Any:
        """Return the engine's own collection of answers, which nothing has computed yet."""
        if collection.engine == "spark" or self.executor.name == "spark":
            if collection.engine != self.executor.name:
                raise ConfigurationError(
                    f"the data is held by {collection.engine}, which the {self.executor.name} backend cannot open; "
                    f"use backend={collection.engine!r}"
                )
            return collection.apply(answer_objects, self.executor.share(work))
        # Pickled here and now: the network may be trained on before somebody computes the Bag.
        return collection.apply(answer_objects, load(dump(Packed.of(work), "the network")))

    def _arrays(self, source: Any, work: InferenceWork, whole: bool) -> Any:
        with self._opened(source, work, whole) as (shared, parts):
            pieces = [piece for piece in self._mapped(compute_part, parts, shared) if piece[1]]
        if not pieces:
            raise EmptyDataError("the data holds no examples")
        arrays = tuple(np.concatenate(column) for column in zip(*(arrays for _, arrays in pieces), strict=True))
        found = arrays if isinstance(work.compute, Outputs) and work.compute.several else arrays[0]
        keys = [keys for keys, _ in pieces if keys is not None]
        return (np.concatenate(keys), found) if keys else found

    def _write(self, source: Any, work: InferenceWork, to: Path, whole: bool) -> Any:
        """Have the workers write pieces, then bring these together, and show the result when it is complete."""
        uri = store.normalise(to)
        check_free(uri)
        job = f"{uri}.partial-{secrets.token_hex(8)}"
        try:
            begin(job)
            check_shared(job, self.executor)
            with self._opened(source, work, whole, job) as (shared, parts):
                pieces = [piece for written in self._mapped(write_part, parts, shared) for piece in written]
            assembly = plan_assembly(job, pieces)
            with self._shared(assembly) as planned:
                for _ in self.executor.map(assemble, assembly.spans(), planned):
                    pass
            return publish(assembly, uri)
        finally:
            end(job)

    # -- parts and what is shared ----------------------------------------------------------------------

    @contextmanager
    def _opened(
        self, data: Any, work: InferenceWork, whole: bool = True, target: str = ""
    ) -> Iterator[tuple[Shared[InferenceWork], Sequence[Any]]]:
        """Give the work, shared with the workers, and the parts of the data."""
        source = open_source(data)
        if isinstance(source, NativeCollection):
            keyed = not whole and source.keyed
            with self._shared(work.to(target)) as shared:
                yield shared, source.objects() if source.lazy or keyed else source.partitions()
        elif isinstance(source, LocalStream) and isinstance(source.objects, list):
            with self._shared(work.to(target)) as shared:
                yield shared, _chunks(source.objects, work)
        else:
            with self._rows(source, work.passes.batch_size) as (rows, spans):
                assert rows is not None
                keyed = not whole and rows.keyed
                with self._shared(work.to(target, rows, keyed)) as shared:
                    yield shared, spans

    @contextmanager
    def _rows(self, data: Any, batch_size: int) -> Iterator[tuple[Source | None, Sequence[Any]]]:
        """Give a source that all workers can read, and spans of it; None, and the partitions that an engine holds."""
        source = open_source(data)
        if isinstance(source, NativeCollection):
            partitions = source.partitions()
            if not partitions:
                raise EmptyDataError("the data holds no examples")
            yield None, partitions
        else:
            with readable_source(source, self.executor, directory=self._directory, batch_size=batch_size) as rows:
                if not rows.rows:
                    raise EmptyDataError("the data holds no examples")
                yield rows, self._spans(rows, batch_size)

    def _spans(self, source: Source, batch_size: int) -> tuple[Partition, ...]:
        """Cut the rows into a few spans for each slot, at the edges of blocks where there are enough of these."""
        slots = self.executor.capacity().slots or 1
        pieces = DefaultRepartitioner(max_partitions=4 * slots if slots > 1 else 1)
        spans = pieces.plan([source.rows], workers=slots, batch_size=batch_size)
        edges = np.cumsum([block.rows for block in source.blocks()]).tolist()
        if len(edges) < 2 * len(spans):
            return spans
        starts = [0, *(edges[bisect(edges, span.start) - 1] for span in spans[1:])]
        stops = [*starts[1:], source.rows]
        return tuple(Partition(s.rank, start, stop) for s, start, stop in zip(spans, starts, stops, strict=True))

    def _reduced(self, task: Task, parts: Sequence[Any], merge: Callable[[Any, Any], Any], work: Shared[Any]) -> Any:
        """Return the merged results of all parts, and repeat here what the workers have logged."""
        found: Heard = self.executor.map_reduce(heard(task, Listening.now()), parts, merge_heard(merge), work).get()
        with Relay() as relay:
            _repeat(relay, found)
        return found.value

    def _mapped(self, task: Task, parts: Sequence[Any], work: Shared[Any]) -> Iterator[Any]:
        """Yield the result of each part, and repeat here what the workers have logged."""
        with Relay() as relay:
            for found in self.executor.map(heard(task, Listening.now()), parts, work):
                _repeat(relay, found)
                yield found.value

    @contextmanager
    def _shared(self, value: Any) -> Iterator[Shared[Any]]:
        shared = self.executor.share(value)
        try:
            yield shared
        finally:
            shared.free()


def _repeat(relay: Relay, found: Heard) -> None:
    for place, said in found.said:
        relay.take(None, place, said)


def _check_batch_size(batch_size: Any) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")


def _is_vector(data: Any) -> bool:
    return isinstance(data, np.ndarray | torch.Tensor) and data.ndim == 1


def _chunks(objects: list[Any], work: InferenceWork) -> list[list[Any]]:
    """Cut a list into parts of a few megabytes, but of one minibatch at least."""
    ends = list(accumulate(len(window) for window in work.windows(objects)))
    return [objects[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]


def _peeked(stream: LocalStream, read: Callable[[Any], Any]) -> tuple[LocalStream, bool]:
    """Say whether the first object of a stream has a key; the stream that comes back has it still."""
    iterator = iter(stream.objects)
    first = list(islice(iterator, 1))
    keyed = any(read(one).keyed for one in first)
    if iterator is stream.objects:
        stream = LocalStream(chain(first, iterator))
    return stream, keyed
