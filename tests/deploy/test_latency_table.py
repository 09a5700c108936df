"""The table of measured latencies."""

import numpy as np
import pytest

from pocketprune.common.errors import UserError
from pocketprune.deploy.latency_table import GRID, LatencyTable, LayerLatency, grid


def test_latency_is_measured_once_per_machine_and_kept(tmp_path) -> None:
    calls: list[tuple[int, int]] = []

    def measure(inputs: int, outputs: int) -> float:
        calls.append((inputs, outputs))
        return 0.1 * inputs * outputs + 0.5

    path = tmp_path / "latency.json"
    first = LayerLatency(LatencyTable(path), "conv1 3x3", 16, 32, measure)
    assert len(calls) == GRID * GRID
    again = LayerLatency(LatencyTable(path), "conv1 3x3", 16, 32, measure)
    assert len(calls) == GRID * GRID
    assert again(7, 9) == first(7, 9) == pytest.approx(0.1 * 7 * 9 + 0.5)
    LayerLatency(LatencyTable(path, device="cuda"), "conv1 3x3", 16, 32, measure)
    assert len(calls) == 2 * GRID * GRID


def test_noisy_latency_never_falls_with_a_width() -> None:
    rng = np.random.default_rng(0)
    cost = LayerLatency(LatencyTable(None), "conv", 9, 9, lambda a, b: a * b + rng.normal(0, 10))
    table = np.array([[cost(a, b) for b in range(1, 10)] for a in range(1, 10)])
    assert np.all(np.diff(table, axis=0) >= 0)
    assert np.all(np.diff(table, axis=1) >= 0)
    assert grid(1) == [1]
    assert grid(3) == [1, 2, 3]


@pytest.mark.parametrize("text", ["[1]", "{", '{"machine": {"conv": "fast"}}'])
def test_a_foreign_latency_file_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "latency.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"latency table .*latency.json: not a table that a search wrote"):
        LatencyTable(path)
