"""What the test session reports beside passes and failures."""
from __future__ import annotations

import os
from typing import Any

# As scripts/launch.py sets it, before torch is imported: a lost connection would come with a trace of torch's code.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The oracle's count of networks, removals and operators."""
    from tests.structure.oracle import COUNTS, OPERATORS
    if not COUNTS:
        return
    terminalreporter.section("structure oracle")
    terminalreporter.write_line(
        f"{COUNTS['networks']} networks, {COUNTS['removals']} removals compared with the zeroed original in float64, "
        f"{COUNTS['groups']} prunable groups ({COUNTS['groups refused by permutation']} left alone by the permutation "
        f"check), {COUNTS['groups thinned']} thinned, {len(OPERATORS)} different operators")
    terminalreporter.write_line(" ".join(f"{name}:{count}" for name, count in sorted(OPERATORS.items())))
