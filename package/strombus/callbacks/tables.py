"""Tables for notebooks: small pieces of HTML in which all that is said is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from strombus.callbacks.base import EpochRecord
from strombus.errors import hide_credentials

__all__ = ["Link", "epoch_table", "fact_table"]

_SHOWN = 20
"""Epochs of a table; of those before it says how many they are."""

_LEFT = "text-align: left; vertical-align: top; padding: 0.1em 1em 0.1em 0;"
_RIGHT = "text-align: right; padding: 0.1em 1em 0.1em 0;"
_TABLE = '<table style="font-variant-numeric: tabular-nums; margin: 0.4em 0;">'


class Link(NamedTuple):
    """A text that leads to a page."""

    text: str
    address: str


def fact_table(title: str, facts: Iterable[tuple[str, Any]]) -> str:
    """Return a title and a row for each fact: its name, and a text of one or more lines or a `Link`."""
    rows = "".join(
        f'<tr><th style="{_LEFT}">{escape(name)}</th><td style="{_LEFT}">{_value(value)}</td></tr>'
        for name, value in facts
    )
    return f"<div><strong>{escape(title)}</strong>{_TABLE}{rows}</table></div>"


def _value(value: Any) -> str:
    if isinstance(value, Link):
        return _link(value)
    return escape(hide_credentials(str(value))).replace("\n", "<br>")


def _link(link: Link) -> str:
    if not link.address.startswith(("http://", "https://")):
        return escape(hide_credentials(f"{link.text}: {link.address}"))
    return f'<a href="{escape(link.address)}" target="_blank" rel="noopener">{escape(link.text)}</a>'


def epoch_table(records: Sequence[EpochRecord], running: Sequence[str] = ()) -> str:
    """Return a row for each epoch; `running` are the cells of one that has not ended, without those of validation."""
    names = sorted({name for record in records for name in record.validation}, key=lambda name: (name != "score", name))
    skipped = any(record.skipped for record in records)
    heads = ["epoch", "score", *(f"validation {name}" for name in names), "rows/s", "seconds"]
    rows = [_cells(record, names) + ([str(record.skipped)] if skipped else []) for record in records[-_SHOWN:]]
    if running:
        epoch, score, *rest = running
        rows.append([epoch, score, *([""] * len(names)), *rest, *([""] if skipped else [])])
    before = len(records) - _SHOWN
    note = f"<div>{before:,} epochs before these</div>" if before > 0 else ""
    head = "".join(f'<th style="{_RIGHT}">{escape(one)}</th>' for one in heads + (["left out"] if skipped else []))
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"{note}{_TABLE}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    return f'<td style="{_RIGHT}">{escape(text)}</td>'


def _cells(record: EpochRecord, names: Sequence[str]) -> list[str]:
    figures = [_number(record.validation.get(name)) for name in names]
    speed = f"{record.examples / record.seconds:,.0f}" if record.seconds else ""
    return [str(record.epoch), _number(record.score), *figures, speed, f"{record.seconds:.2f}"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if math.isfinite(value) else str(value)
