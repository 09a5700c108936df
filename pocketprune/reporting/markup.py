"""Small pieces of HTML. Every text from outside goes through `escape`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from pocketprune.reporting.style import STYLE

__all__ = ["definitions", "details", "document", "escape", "notice", "section", "table", "tile"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser lets the page load: nothing but what is in it."""


def document(title: str, lead: str, parts: Sequence[str]) -> str:
    """Return a whole page. It asks for nothing outside of itself, and runs no script."""
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n{body}\n</main>\n</body>\n</html>\n'
    )


def section(title: str, text: str, *content: str) -> str:
    """Return a titled part of the page, with a sentence on what it shows; nothing where it has no content."""
    inside = "\n".join(part for part in content if part)
    if not inside:
        return ""
    sentence = f'<p class="muted">{escape(text)}</p>\n' if text else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{sentence}{inside}\n</section>"


def tile(title: str, value: str, below: str) -> str:
    """Return one large figure with what it is and what it compares to."""
    return f'<div class="tile"><small>{escape(title)}</small><b>{escape(value)}</b><small>{escape(below)}</small></div>'


def notice(lines: Sequence[str]) -> str:
    """Return a box of warnings; nothing where there are none."""
    return f'<div class="notice">{"".join(f"<p>{escape(line)}</p>" for line in lines)}</div>' if lines else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, last: bool = False) -> str:
    """Return a table that scrolls by itself where it is too wide.

    Args:
        head: plain texts.
        rows: cells as HTML; the first one of each row is its head.
        last: whether the last column is the result, in bold.
    """
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(_row(cells, last) for cells in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(cells: Sequence[str], last: bool) -> str:
    inner = [f"<td>{cell}</td>" for cell in cells[1:]]
    if last and inner:
        inner[-1] = f'<td class="last">{cells[-1]}</td>'
    return f'<tr><th scope="row">{cells[0]}</th>{"".join(inner)}</tr>'


def details(summary: str, content: str) -> str:
    """Return content that is folded away until it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>" if content else ""


def definitions(entries: Mapping[str, object]) -> str:
    """Return names and values as a list."""
    rows = (f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in entries.items())
    return f"<dl>{''.join(rows)}</dl>" if entries else ""
