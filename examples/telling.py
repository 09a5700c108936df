"""The table that every example ends with, and the arguments that every example takes."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import pocketprune


def arguments(teach: str, epochs: int, share: float = 0.5) -> argparse.Namespace:
    """Return the arguments of an example: how long it trains, on how many pictures, and what it keeps."""
    parser = argparse.ArgumentParser(description=teach)
    parser.add_argument("--epochs", type=int, default=epochs, help=f"of the dense network ({epochs})")
    parser.add_argument("--images", type=int, default=600, help="training examples (600)")
    parser.add_argument("--share", type=float, default=share, help=f"share of the MACs to keep ({share})")
    parser.add_argument("--rollouts", type=int, default=20, help="networks that the search may score (20)")
    given = parser.parse_args()
    torch.manual_seed(0)
    return given


def settings(given: argparse.Namespace) -> pocketprune.SearchSettings:
    """Return the settings of an example's search, which takes few roll-outs."""
    return pocketprune.SearchSettings(nb_rlouts=given.rollouts, swaps=given.rollouts // 2, probes=(0.25, 0.5, 0.75))


def show(name: str, metric: Callable[[nn.Module], float], nets: Mapping[str, nn.Module], example: Any) -> None:
    """Print the metric, the MACs and the milliseconds of each network, the first one the dense one."""
    print(f"\n{'':20}{name:>16}{'MACs':>12}{'':>8}{'latency':>12}")
    whole = pocketprune.count_macs(next(iter(nets.values())), example)
    for title, net in nets.items():
        macs, time = pocketprune.count_macs(net, example), pocketprune.measure_latency(net, example)
        print(f"{title:20}{metric(net.eval()):16.4f}{macs / 1e6:10.2f} M{macs / whole:8.1%}{time:9.2f} ms")
