"""What the test session reports beside passes and failures, also where it runs in several processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import pytest

# As scripts/launch.py sets it, before torch is imported: a lost connection would come with a trace of torch's code.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

# A shell lets what it starts in the background ignore Ctrl-C, and all that this starts inherits it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process of pytest-xdist hands in what its oracle has counted."""
    oracle = sys.modules.get("tests.structure.oracle")
    if oracle is not None and hasattr(session.config, "workeroutput"):
        session.config.workeroutput["oracle"] = (dict(oracle.COUNTS), dict(oracle.OPERATORS))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """The counts of a worker process join those of the session."""
    from tests.structure.oracle import COUNTS, OPERATORS

    for total, part in zip((COUNTS, OPERATORS), getattr(node, "workeroutput", {}).get("oracle", ()), strict=False):
        total.update(part)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The oracle's count of networks, removals and operators."""
    from tests.structure.oracle import COUNTS, OPERATORS

    if not COUNTS:
        return
    terminalreporter.section("structure oracle")
    terminalreporter.write_line(
        f"{COUNTS['networks']} networks, {COUNTS['removals']} removals compared with the zeroed original in float64, "
        f"{COUNTS['groups']} prunable groups ({COUNTS['groups refused by permutation']} left alone by the permutation "
        f"check), {COUNTS['groups thinned']} thinned, {len(OPERATORS)} different operators"
    )
    terminalreporter.write_line(" ".join(f"{name}:{count}" for name, count in sorted(OPERATORS.items())))
