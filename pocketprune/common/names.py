"""Suggest a known name where an unknown one was given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def similar(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the known name most like `name`, or "" where none is more alike than `cutoff`."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or "" where no known name is like this one."""
    close = similar(name, known)
    return f"; did you mean '{close}'?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name.

    The end is `; did you mean 'x'?` where a known name is similar. Otherwise it lists the first eight known names, and
    it is empty where there are none.
    """
    names = list(known)
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return suggestion(name, names) or (f"; accepted: {shown}" if names else "")
