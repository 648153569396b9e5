"""JSON and YAML that come from anywhere: plain values only, in time and memory in proportion to the text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import yaml
from pydantic import ValidationError

__all__ = ["DocumentError", "counted", "explain", "parse_json", "parse_yaml", "shorten"]

DEEPEST = 64
"""Levels of lists and mappings within one another; what Strombus writes has fewer than ten."""

_INTEGERS = range(-(2**63), 2**64)
_REPEATED = 10_000
"""Values that a YAML text's aliases may stand for, besides as many as it has characters."""

_PROBLEMS = 20
"""Wrong options that one error lists."""

_MERGE = "tag:yaml.org,2002:merge"


class DocumentError(ValueError):
    """A text that is no document as wanted; its reader raises an error of its own that names the file."""


def parse_json(text: str | bytes, most: int, *, finite: bool = True) -> Any:
    """Return what a JSON text says.

    Parameters
    ----------
    text : str or bytes
    most : int
        Characters, or bytes, that it may have.
    finite : bool
        Whether NaN and Infinity, which Python writes and JSON does not know, are refused.

    Raises
    ------
    DocumentError
        When it is longer, is no JSON, names a key twice, is nested more than 64 levels
        deep, or has an integer of more than 64 bits.
    """
    _check_length(text, most)
    try:
        return _plain(json.loads(text, object_pairs_hook=_mapping, parse_constant=_refuse_constant if finite else None))
    except RecursionError:
        raise DocumentError(f"it is nested more than {DEEPEST} levels deep") from None
    except UnicodeDecodeError:
        raise DocumentError("it is no text") from None
    except ValueError as error:
        raise DocumentError(str(error)) from None


def parse_yaml(text: str, most: int) -> Any:
    """Return what a YAML text says, by `yaml.SafeLoader`; DocumentError as of `parse_json`.

    Aliases and merged keys may be used, as long as what they stand for, written out, is not much longer than the text.
    """
    _check_length(text, most)
    try:
        return _plain(yaml.load(text, _Loader))
    except RecursionError:
        raise DocumentError(f"it is nested more than {DEEPEST} levels deep") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise DocumentError(str(error)) from None


def shorten(value: Any, most: int = 200) -> str:
    """Return ``repr(value)`` for a message: a value from a file may be as large as the file."""
    text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= most else f"{text[:most]}..."


def explain(error: ValidationError, owner: str, spellings: Mapping[str, str]) -> str:
    """Return one line of what is wrong with the options of `owner`.

    `spellings` has the ways to write each option, in the order in which an error lists them.
    """
    known = f"; known: {', '.join(dict.fromkeys(spellings.values()))}"
    lines: list[str] = []
    for problem in error.errors():
        option = ".".join(str(part)[:100] for part in problem["loc"])
        if problem["type"] == "extra_forbidden" and option in spellings:
            others = [one for one, name in spellings.items() if name == spellings[option] and one != option]
            lines.append(f"{owner} was given {spellings[option]} twice: as {option!r} and as {others[0]!r}")
        elif problem["type"] == "extra_forbidden":
            meant = get_close_matches(option, spellings, n=1) if len(lines) < _PROBLEMS else []
            hint = "".join(f"; did you mean {spellings[one]}?" for one in meant)
            lines.append(f"{owner} has no option {option!r}{known}{hint}")
            known = ""  # once is enough
        else:
            value = f" {option} = {shorten(problem.get('input'))}:" if option else ""
            lines.append(f"{owner}:{value} {problem['msg'].removeprefix('Value error, ')[:2000]}")
    return "; ".join(lines[:_PROBLEMS]) + ("" if len(lines) <= _PROBLEMS else f"; and {len(lines) - _PROBLEMS} more")


def counted(number: int, noun: str) -> str:
    """Return ``1 file``, ``2 files`` for a message."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _check_length(text: str | bytes, most: int) -> None:
    if not isinstance(text, str | bytes):
        raise DocumentError(f"a text is wanted, got {type(text).__name__}")
    if len(text) > most:
        raise DocumentError(f"it has {len(text):,} characters, at most {most:,} are read")


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise DocumentError(f"the key {shorten(twice)} is there twice")
    return found


def _refuse_constant(name: str) -> None:
    raise DocumentError(f"{name} is no number of JSON")


def _plain(value: Any) -> Any:
    """Return `value` if it consists of what JSON knows, and of nothing else."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise DocumentError(f"it is nested more than {DEEPEST} levels deep")
        level, depth = [inner for one in level for inner in _inside(one)], depth + 1
    return value


def _inside(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return value
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise DocumentError(f"keys must be texts, got {shorten(key)}; write it in quotes")
            _check_text(key)
        return value.values()
    if kind is str:
        _check_text(value)
    elif kind is int and value not in _INTEGERS:
        raise DocumentError(f"an integer of {value.bit_length()} bits, at most 64 are read")
    elif kind not in (int, float, bool, type(None)):
        raise DocumentError(f"{shorten(value)} is a {kind.__name__}; if a text is meant, write it in quotes")
    return ()


def _check_text(text: str) -> None:
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DocumentError(f"{shorten(text)} has half a character (a lone surrogate)")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, bounded: a few lines of aliases within aliases would stand for billions of values."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._most = len(text) + _REPEATED

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise DocumentError(f"it is nested more than {DEEPEST} levels deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            self._count(node, {})
        return node

    def _count(self, node: yaml.Node, counted: dict[int, int | None]) -> int:
        """Return how many values `node` stands for, each alias written out."""
        if id(node) in counted:
            found = counted[id(node)]
            if found is None:
                raise DocumentError("an alias stands for what it is in itself")
            return found
        counted[id(node)] = None
        total = 1 + sum(self._count(inner, counted) for inner in _nodes_in(node))
        if total > self._most:
            raise DocumentError(f"its aliases stand for more than {self._most:,} values")
        counted[id(node)] = total
        return total

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what ``<<`` names; before that a key may be there only once."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE)
        if keys and (twice := keys.most_common(1)[0])[1] > 1:
            raise DocumentError(f"the key {shorten(twice[0])} is there twice")
        super().flatten_mapping(node)


def _nodes_in(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [one for pair in node.value for one in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
