"""The examples of a page in docs/, each run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent.parent / "docs"


def examples(page: str, language: str = "python") -> list[str]:
    """Return the code blocks of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def title(example: str) -> str:
    """Return what an example imports, for the test's name."""
    return "-".join(re.findall(r"import ([\w, ]+)$", example, flags=re.MULTILINE)[-1].split(", ")[:2])


def run(example: str, **given: Any) -> dict[str, Any]:
    """Run an example with these names, and return all names that it ends with."""
    names = dict(given)
    exec(compile(example, "example", "exec"), names)
    return names
