"""Print which of pyproject.toml's requirements this interpreter lacks. Standard library only.

    python scripts/requirements.py [--all] [EXTRA ...]

With --all every requirement is printed, installed or not.
"""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def requirements(extras: list[str]) -> list[str]:
    """Return the project's requirements and those of the extras, as pyproject.toml states them."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(text for extra in extras for text in optional[extra])]


def is_met(requirement: str) -> bool:
    """Return whether `name>=version` is installed."""
    name, _, least = requirement.partition(">=")
    try:
        return _numbers(version(name)) >= _numbers(least)
    except PackageNotFoundError:
        return False


def _numbers(text: str) -> tuple[int, ...]:
    """Return (2, 13, 0) for '2.13.0+cpu'."""
    return tuple(int(number) for number in re.findall(r"\d+", text.split("+")[0]))


if __name__ == "__main__":
    everything, extras = "--all" in sys.argv, [word for word in sys.argv[1:] if word != "--all"]
    for requirement in requirements(extras):
        if everything or not is_met(requirement):
            print(requirement)
