"""What a network's row of the report holds: how good it is on the test set, and what it costs."""

from collections.abc import Sequence
from statistics import median

import torch
from torch import nn

import pocketprune
from learners.context import RunContext
from pocketprune.training.metrics import evaluate

Row = dict[str, float]
"""A network's measured values by the name of their column."""

LATENCY_SECONDS = 2.0  # each network is timed for about this long,
LATENCY_ROUNDS = 11  # in this many turns


def quality(run: RunContext, net: nn.Module) -> Row:
    """Return how good a network is: the metric of the run's task, or for a classifier its accuracy and loss."""
    if run.task is None:
        return accuracy(run, net)
    with run.timed("evaluate"):
        return {run.metric: run.task.measure(net)} if run.metric else {}


def accuracy(run: RunContext, net: nn.Module) -> Row:
    """Return the accuracy (a share) and the loss of a network on the test set."""
    with run.timed("evaluate"):
        metrics = evaluate(net, run.dataset.test, run.config.data.batch_size_eval, device=run.device)
    return {"accuracy": metrics.accuracy, "loss": metrics.loss}


def costs(run: RunContext, *nets: nn.Module, macs: Sequence[int] | None = None) -> list[Row]:
    """Return each network's MACs for one image, parameters, and milliseconds for a batch of `latency_batch`.

    Args:
        macs: the networks' MACs where they are known; None: each network is traced.
    """
    counts = macs or [pocketprune.count_macs(net, run.example) for net in nets]
    return [
        {"macs": count, "params": pocketprune.count_params(net), "latency_ms": milliseconds}
        for net, count, milliseconds in zip(nets, counts, _latencies(run, nets), strict=True)
    ]


def _latencies(run: RunContext, nets: Sequence[nn.Module]) -> list[float]:
    """Time networks in turns, so that whatever else the machine does slows all of them alike."""
    batch = torch.zeros(run.config.run.latency_batch, *run.dataset.input_shape, device=run.device)
    with run.timed("evaluate"):
        once = pocketprune.measure_latency(nets[0], batch, repeats=1)
        repeats = max(1, min(10, round(LATENCY_SECONDS * 1000 / (LATENCY_ROUNDS * once))))
        rounds = [
            [pocketprune.measure_latency(net, batch, repeats=repeats) for net in nets] for _ in range(LATENCY_ROUNDS)
        ]
    return [median(times) for times in zip(*rounds, strict=True)]
