"""Figures as text: aligned tables, and the report of a classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from strombus.evaluation.base import Array

if TYPE_CHECKING:
    from strombus.evaluation.evaluation import Evaluation

__all__ = ["brief", "confusion_table", "evaluation_text", "table"]

_MOST_NAMED = 16
_MOST_SHOWN = 20


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 4) -> str:
    """Return rows under a header in aligned columns, the first to the left; floats with `digits` decimals."""
    cells = [list(header), *([_cell(value, digits) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    justified = [[row[0].ljust(widths[0]), *row[1:]] for row in cells]
    lines = ("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in justified)
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any, digits: int) -> str:
    if not isinstance(value, float):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def brief(count: float) -> str:
    """Return a count as it is, a sum of weights with four digits at least."""
    return f"{count:.4g}" if isinstance(count, float) and count < 1000 else f"{count:.0f}"


def confusion_table(matrix: Array, names: Sequence[str]) -> str:
    """Return a confusion matrix as text, row = actual class."""
    cells = [[brief(value) for value in row] for row in matrix.tolist()]
    width = max(*(len(cell) for row in cells for cell in row), *(len(name) for name in names)) + 1
    rows = ["".join(f"{cell:>{width}}" for cell in row) for row in cells]
    header = " " * width + "".join(f"{name:>{width}}" for name in names)
    return "\n".join([header, *(f"{name:>{width}}{row}" for name, row in zip(names, rows, strict=True))])


def evaluation_text(evaluation: Evaluation, suppress_warnings: bool, include_confusion: bool) -> str:
    """Return what `Evaluation.stats` shows."""
    outcomes = evaluation.outcomes
    classes, positive = len(outcomes.true_positives), evaluation.binary_positive_class
    kind = "macro average"
    if classes == 2 and positive is not None:
        kind = f"class {evaluation.class_label(positive)}"
    lines = [
        f"examples   {brief(evaluation.examples)}",
        f"classes    {classes}",
        f"accuracy   {evaluation.accuracy():.4f}",
        *([f"top {evaluation.top_n:<7}{evaluation.top_n_accuracy():.4f}"] if evaluation.top_n > 1 else []),
        *(f"{name:<10} {getattr(evaluation, name)():.4f}  ({kind})" for name in ("precision", "recall", "f1")),
    ]
    if evaluation.binary_decision_threshold is not None:
        lines.append(f"threshold  {evaluation.binary_decision_threshold:g}")
    if evaluation.cost_array is not None:
        lines.append(f"costs      {', '.join(f'{weight:g}' for weight in evaluation.cost_array)}")
    if not suppress_warnings:
        lines += _warnings(evaluation)
    if include_confusion and classes <= _MOST_SHOWN:
        lines += ["", "confusion matrix (row = actual, column = predicted)", evaluation.confusion_to_string()]
    elif include_confusion:
        lines += ["", f"confusion matrix of {classes} classes not shown: see confusion_matrix"]
    return "\n".join(lines)


def _warnings(evaluation: Evaluation) -> list[str]:
    zero, outcomes = evaluation.undefined == "zero", evaluation.outcomes
    occurs = outcomes.positives + outcomes.false_positives > 0
    lines = []
    for figure, why in (("precision", "never predicted"), ("recall", "without labels")):
        numbers = [n for n in evaluation.undefined_classes(figure) if occurs[n] or not zero]
        found = [evaluation.class_label(number) for number in numbers]
        if found:
            named = ", ".join(found[:_MOST_NAMED]) + (", ..." if len(found) > _MOST_NAMED else "")
            fate = ("counts", "count") if zero else ("is left out of", "are left out of")
            verb = fate[len(found) > 1] + " 0 in" * zero
            lines.append(f"{why}: {named} ({len(found)} class{'es' * (len(found) > 1)} {verb} the average {figure})")
    return lines
