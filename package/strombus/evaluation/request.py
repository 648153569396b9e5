"""What a user asks to have evaluated, laid out flat for the workers, and the answer in the form of the question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from strombus.errors import ConfigurationError, kind_of
from strombus.evaluation.base import Metric

__all__ = ["Request"]


class Request:
    """Metrics of one or more outputs.

    Parameters
    ----------
    metrics : sequence or mapping
        `Metric`, ``torchmetrics.Metric`` or ``MetricCollection``; a mapping has a sequence of them for each
        number of an output.

    Attributes
    ----------
    metrics : tuple of Metric
        All of them, empty.
    outputs : tuple of int
        The output that each one judges.

    Raises
    ------
    ConfigurationError
        When there is none, when one is no metric, or cannot be merged.
    """

    def __init__(self, metrics: Sequence[Any] | Mapping[int, Sequence[Any]]) -> None:
        self._several = isinstance(metrics, Mapping)
        asked = metrics if isinstance(metrics, Mapping) else {0: metrics}
        self._rows: list[tuple[int, int, Callable[[Sequence[Any]], Any]]] = []
        flat: list[tuple[int, Metric]] = []
        for output, listed in asked.items():
            if isinstance(output, bool) or not isinstance(output, int) or output < 0:
                raise ConfigurationError(f"metrics are given for the number of an output, from 0 on, got {output!r}")
            if not isinstance(listed, Sequence) or isinstance(listed, str):
                raise ConfigurationError(f"metrics must be a sequence of metrics, got {kind_of(listed)}")
            for metric in listed:
                parts, restore = _parts(metric)
                self._rows.append((output, len(parts), restore))
                flat += [(output, part) for part in parts]
        if not flat:
            raise ConfigurationError("do_evaluation needs at least one metric, such as strombus.Evaluation()")
        self.outputs = tuple(output for output, _ in flat)
        self.metrics = tuple(metric.fresh() for _, metric in flat)

    def answer(self, filled: Sequence[Metric]) -> Any:
        """Return the filled metrics as they were asked for: a list, or a mapping of output to list."""
        found: dict[int, list[Any]] = {}
        start = 0
        for output, count, restore in self._rows:
            found.setdefault(output, []).append(restore(filled[start : start + count]))
            start += count
        return found if self._several else found[0]


def _parts(metric: Any) -> tuple[list[Metric], Callable[[Sequence[Any]], Any]]:
    """Return the metrics that `metric` stands for, and what makes one like it of them."""
    if isinstance(metric, Metric):
        return [metric], lambda filled: filled[0]
    module = {kind.__module__.partition(".")[0] for kind in type(metric).__mro__}
    if "torchmetrics" in module:
        from torchmetrics import MetricCollection

        from strombus.evaluation.torch_metrics import TorchMetric

        if not isinstance(metric, MetricCollection):
            return [TorchMetric(metric)], lambda filled: filled[0].metric
        members = dict(metric.items(keep_base=True))
        names, prefix, postfix = list(members), metric.prefix, metric.postfix
        return [TorchMetric(member) for member in members.values()], lambda filled: MetricCollection(
            {name: one.metric for name, one in zip(names, filled, strict=True)},
            prefix=prefix,
            postfix=postfix,
            compute_groups=False,
        )
    raise ConfigurationError(
        f"a metric is a strombus.evaluation.Metric or a torchmetrics.Metric, got {kind_of(metric)}"
    )
