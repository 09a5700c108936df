"""Suggest a known name where an unknown one was given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name.

    The end is `; did you mean 'x'?` where a known name is similar. Otherwise it lists the first eight known names, and
    it is empty where there are none.
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"; accepted: {shown}" if names else ""
