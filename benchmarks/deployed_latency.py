"""Dense against pruned latency where networks are deployed: PyTorch, torch.compile, ONNX Runtime, OpenVINO.

    python benchmarks/deployed_latency.py

ResNet-50- and MobileNet-v2-shaped networks with random weights are pruned to half of their MACs. Dense and pruned
take turns in one process, call by call, and every figure is a median, so that what else the machine does hits both.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from common import machine, table
from torch import Tensor, nn

import nets
import pocketprune
from pocketprune.deploy.runtimes import Runner, latencies, open_onnx, open_openvino, run_eagerly

NETWORKS = {
    "resnet50": ("ResNet-50", "resnet_imagenet", {"resnet_size": 50}),
    "mobilenet_v2": ("MobileNet-v2", "mobilenet_v2", {}),
}
HEAD = ["network", "runtime", "batch", "dense, ms", "pruned, ms", "speed-up", "theoretical", "achieved / theoretical"]


@dataclass(frozen=True)
class Pair:
    """A network before and after pruning, and the ratio of their MACs."""

    title: str
    dense: nn.Module
    pruned: nn.Module
    theoretical: float


def pruned_pair(name: str, flags: argparse.Namespace) -> Pair:
    """The network, and what `prune_channels` makes of it; its random weights need no careful calibration."""
    title, net_name, options = NETWORKS[name]
    torch.manual_seed(flags.seed)
    size = (3, flags.input_size, flags.input_size)
    net = nets.create_net(net_name, num_classes=1000, input_shape=size, **options).eval()
    start = time.perf_counter()
    result = pocketprune.prune_channels(
        net,
        [torch.randn(4, *size)],
        pocketprune.MacsShare(flags.macs),
        options=pocketprune.PruningOptions(
            selection="magnitude",
            shared_input="keep",
            refit="pruned",
            points_per_layer=4,
            channel_multiple=flags.channel_multiple,
            seed=flags.seed,
        ),
    )
    print(
        f"{title}: {result.dense_macs / 1e6:.0f} M -> {result.macs / 1e6:.0f} M MACs "
        f"({result.macs / result.dense_macs:.1%}), pruned in {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    return Pair(title, net, result.net.eval(), result.dense_macs / result.macs)


def compiled(net: nn.Module, _example: Tensor) -> Runner:
    """The network through torch.compile, a program for each batch size."""
    torch._dynamo.reset()
    return run_eagerly(torch.compile(net, dynamic=False))


def in_onnx_runtime(net: nn.Module, example: Tensor) -> Runner:
    with tempfile.TemporaryDirectory() as folder:
        return open_onnx(pocketprune.export_onnx(Path(folder, "net.onnx"), net, example, repeats=1).path)


def in_openvino(net: nn.Module, example: Tensor) -> Runner:
    with tempfile.TemporaryDirectory() as folder:
        return open_openvino(pocketprune.export_openvino(Path(folder, "net.xml"), net, example, repeats=1).path)


RUNTIMES: dict[str, tuple[str, Callable[[nn.Module, Tensor], Runner], tuple[str, ...]]] = {
    "eager": ("PyTorch", lambda net, _: run_eagerly(net), ()),
    "compile": ("torch.compile", compiled, ()),
    "onnx": ("ONNX Runtime", in_onnx_runtime, ("onnx", "onnxscript", "onnxruntime")),
    "openvino": ("OpenVINO", in_openvino, ("openvino", "onnx", "onnxscript")),
}


def lacking(runtime: str) -> str:
    """What a runtime needs that is not here; empty where nothing is."""
    if runtime == "compile" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "a C++ compiler"
    return ", ".join(name for name in RUNTIMES[runtime][2] if importlib.util.find_spec(name) is None)


def measured(pair: Pair, runtime: str, flags: argparse.Namespace) -> list[list[object]]:
    """Rows of one network in one runtime, printed as they come."""
    title, prepare, _ = RUNTIMES[runtime]
    shape = (3, flags.input_size, flags.input_size)
    # A runtime may tune itself to the first shape it meets, so every batch size gets runners of its own.
    rows = []
    for batch in flags.batches:
        images = torch.randn(batch, *shape)
        runners = [prepare(net, images[:1]) for net in (pair.dense, pair.pruned)]
        dense, pruned = latencies([lambda r=r, x=images: r(x) for r in runners], repeats=flags.rounds)
        speedup = dense / pruned
        rows.append(
            [
                pair.title,
                title,
                batch,
                f"{dense:.1f}",
                f"{pruned:.1f}",
                f"{speedup:.2f}",
                f"{pair.theoretical:.2f}",
                f"{speedup / pair.theoretical:.0%}",
            ]
        )
        print("| " + " | ".join(map(str, rows[-1])) + " |", flush=True)
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=15, help="timed calls of each network")
    parser.add_argument("--input_size", type=int, default=224)
    parser.add_argument("--macs", type=float, default=0.5, help="share of the MACs that stays")
    parser.add_argument("--channel_multiple", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    flags = arguments()
    logging.getLogger("torch").setLevel(logging.ERROR)
    usable = [name for name in flags.runtimes if not lacking(name)]
    for name in set(flags.runtimes) - set(usable):
        print(f"{RUNTIMES[name][0]} left out: needs {lacking(name)}", file=sys.stderr)
    rows = []
    for network in flags.networks:
        pair = pruned_pair(network, flags)
        for runtime in usable:
            rows += measured(pair, runtime, flags)
    print("\n" + table(HEAD, rows))
    print(
        f"\n{flags.input_size}x{flags.input_size} inputs, {flags.macs:.0%} of the MACs, inner widths in multiples of "
        f"{flags.channel_multiple}, random weights, medians of {flags.rounds} alternating calls; {machine()}"
    )


if __name__ == "__main__":
    main()
