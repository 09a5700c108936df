"""Distiller's YAML files: plain values, and the line that each stands in."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.common.registry import one_line

Place = tuple[str | int, ...]
"""Keys and numbers that lead to a value, such as ("pruners", "low", "weights", 0)."""


@dataclass(frozen=True)
class Document:
    """A file's content.

    Attributes:
        content: dicts, lists and plain values.
        lines: the line of each value, from 1.
    """

    content: dict[str, Any]
    lines: dict[Place, int]

    def error(self, place: Place, words: str) -> UserError:
        """Return an error that names the line and the way to a value."""
        known = next((place[:end] for end in range(len(place), 0, -1) if place[:end] in self.lines), ())
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
        where = f"line {self.lines[known]}: " if known else ""
        return UserError(f"{where}{path}: {words}" if path else f"{where}{words}", argument="compress")

    def get(self, place: Place, default: Any = None) -> Any:
        """Return the value at a place."""
        value: Any = self.content
        for step in place:
            if isinstance(value, dict) and step not in value:
                return default
            value = value[step]
        return value

    def section(self, place: Place) -> dict[str, Any]:
        """Return a dict at a place; an empty one where there is nothing.

        Raises:
            UserError: something else stands there.
        """
        found = self.get(place) or {}
        if not isinstance(found, dict):
            raise self.error(place, f"{found!r} given; names with values are accepted")
        return found

    def check_keys(self, place: Place, known: Iterable[str]) -> None:
        """Check that a dict has no unknown key.

        Raises:
            UserError: it has one; the nearest known one is named.
        """
        accepted = list(known)
        unknown = next((key for key in self.section(place) if key not in accepted), None)
        if unknown is not None:
            raise self.error((*place, unknown), f"no such key{nearest(str(unknown), accepted)}")


def read_document(path: str | Path) -> Document:
    """Return the content of a YAML file.

    Raises:
        UserError: it cannot be read; a fault in it is told with its line.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("no such file", argument="compress")
    try:
        return parse_document(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({one_line(error)})", argument="compress") from error


def parse_document(text: str) -> Document:
    """Return the content of a YAML text; see `read_document`."""
    if importlib.util.find_spec("yaml") is None:
        raise UserError(
            'needs pyyaml, not installed here; pip install "pocketprune[policies]" installs it', argument="compress"
        )
    import yaml

    try:
        alias = next((token for token in yaml.scan(text) if isinstance(token, yaml.AliasToken)), None)
        if alias is not None:  # they may grow without end
            line = alias.start_mark.line + 1
            raise UserError(f"line {line}: aliases (*name) are not accepted", argument="compress")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise UserError(
            f"{where}no YAML ({getattr(error, 'problem', None) or one_line(error)})", argument="compress"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{type(content).__name__} given; sections such as pruners and policies are accepted",
                        argument="compress")  # fmt: skip
    lines: dict[Place, int] = {}
    _note_lines(root, (), lines)
    return Document(content, lines)


def _note_lines(node: Any, place: Place, lines: dict[Place, int]) -> None:
    import yaml

    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value)
            _note_lines(value, inner, lines)
            lines[inner] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _note_lines(value, (*place, number), lines)
