"""Accuracy right after pruning, by selection and preserve ratio, no fine-tuning: every block's inner width reduced.

python benchmarks/no_finetune.py --data_dir data --init_checkpoint resnet20.pt
"""

from __future__ import annotations

import time

from common import arguments, calibration, cifar10, cifar_resnet, machine, table

import pocketprune
from pocketprune.training.metrics import evaluate


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--points", type=int, default=0, help="positions an image; 0 takes all")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.73])
    parser.add_argument("--selections", nargs="+", default=["lasso", "obs", "magnitude", "random"])
    flags = parser.parse_args()
    data, net = cifar10(flags.data_dir, flags.device), cifar_resnet(20, flags.init_checkpoint, flags.device)
    batches = calibration(data, flags.images, seed=flags.seed)
    dense = evaluate(net, data.test, 500, progress=False).accuracy
    rows = [["dense", "1", "100 %", f"{dense:.2%}", ""]]
    for ratio in flags.ratios:
        for selection in flags.selections:
            start = time.perf_counter()
            result = pocketprune.prune_channels(
                net,
                batches,
                ratio,
                options=pocketprune.PruningOptions(
                    shared_input="keep", selection=selection, points_per_layer=flags.points, seed=flags.seed
                ),
            )
            took = time.perf_counter() - start
            accuracy = evaluate(result.net, data.test, 500, progress=False).accuracy
            rows.append([selection, ratio, f"{result.macs / result.dense_macs:.1%}", f"{accuracy:.2%}", f"{took:.0f}"])
            print(table(["selection", "ratio", "MACs", "test accuracy", "seconds"], rows[-1:]), flush=True)
    print(table(["selection", "ratio", "MACs", "test accuracy", "seconds"], rows))
    print(f"\nResNet-20, CIFAR-10, {flags.images} images, seed {flags.seed}; {machine(flags.device)}")


if __name__ == "__main__":
    main()
