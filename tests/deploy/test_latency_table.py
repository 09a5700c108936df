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


def test_a_sampler_that_costs_more_than_it_saves_is_never_priced_above_the_whole_input() -> None:
    cost = LayerLatency(LatencyTable(None), "conv", 16, 8, lambda a, b: a * b + 40 * (a < 16), sampled=True)
    assert cost(16, 8) == 16 * 8
    assert cost(15, 8) == cost(12, 8) == 16 * 8  # 15 * 8 + 40 as timed
    assert cost(5, 8) == 5 * 8 + 40
    assert [n for n in range(1, 17) if cost.saves(n, 8)] == list(range(1, 11))  # 11 * 8 + 40 is as much


@pytest.mark.parametrize("text", ["[1]", "{", '{"machine": {"conv": "fast"}}'])
def test_a_foreign_latency_file_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "latency.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"latency table .*latency.json: not a table that a search wrote"):
        LatencyTable(path)
