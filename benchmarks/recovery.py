"""What brings accuracy back after pruning, and what it costs: without labels, by fine-tuning, distillation, groups.

    python benchmarks/recovery.py --data_dir data --init_checkpoint resnet20.pt --results recovery.jsonl

Every row starts from the same pruned CIFAR ResNet; rows that train with labels take the same number of epochs (group
tuning spends a quarter of them between its groups), "imitate" takes --recover_epochs of its own. Rows are printed, and
appended to --results, as they come; --rows selects some.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from common import arguments, calibration, cifar10, cifar_resnet, machine, subset, table
from torch import nn

import pocketprune
from pocketprune.channel_pruning.imitation import Imitation, agreement_with
from pocketprune.channel_pruning.recovery import reconstruct_blocks
from pocketprune.training import Classification, Cosine, Distillation, TrainSettings, evaluate, train
from pocketprune.training.batch_norm import reestimate_batch_norm


class Bench:
    """One share of the MACs: its pruned network, and the rows."""

    def __init__(self, flags: object, macs: float) -> None:
        self.flags, self.macs = flags, macs
        self.data = cifar10(flags.data_dir, flags.device, flags.seed)
        self.dense = cifar_resnet(flags.resnet_size, flags.init_checkpoint, flags.device)
        self.batches = calibration(self.data, flags.images, seed=flags.seed)
        self.settings = TrainSettings(
            epochs=flags.epochs,
            optimizer=flags.optimizer,
            lrn_rate=flags.lrn_rate,
            schedule=Cosine(flags.warmup),
            weight_decay=flags.loss_w_dcy,
            seed=flags.seed,
            amp=flags.amp,
            channels_last=flags.device == "cpu" or flags.amp == "bf16",
        )

    def prune(self, hooks: pocketprune.Hooks | None = None, **options: object) -> nn.Module:
        return pocketprune.prune_channels(
            self.dense,
            self.batches,
            pocketprune.MacsShare(self.macs),
            options=pocketprune.PruningOptions(
                shared_input=self.flags.shared_input,
                allocation=self.flags.allocation,
                selection=self.flags.selection,
                points_per_layer=self.flags.points,
                seed=self.flags.seed,
                **options,
            ),
            hooks=hooks,
        ).net

    @cached_property
    def pruned(self) -> nn.Module:
        return self.prune()

    def none(self, net: nn.Module) -> None:
        """Nothing: the closed form alone."""

    def bn(self, net: nn.Module) -> None:
        reestimate_batch_norm(net, self.batches)

    def blocks(self, net: nn.Module) -> None:
        reconstruct_blocks(net, self.dense, self.batches, steps=self.flags.steps)

    def blocks_bn(self, net: nn.Module) -> None:
        self.blocks(net)
        self.bn(net)

    def imitate(self, net: nn.Module) -> None:
        """The network imitates the dense one, without labels. Its best state on held-out images stays."""
        task = Imitation(net, self.dense, self.batches[0][:2])
        settings = replace(
            self.settings,
            epochs=self.flags.recover_epochs,
            optimizer="adam",
            lrn_rate=self.flags.recover_lrn_rate,
            clip_norm=1.0,
        )
        held_out = [x for x, _ in subset(self.data.val, 1000, self.flags.seed).batches(500)]
        judge = agreement_with(self.dense, held_out)
        train(net, self.data.train, settings, objective=task, callbacks=[task], judge=judge, progress=False)

    def blocks_imitate(self, net: nn.Module) -> None:
        self.blocks(net)
        self.imitate(net)

    def finetune(self, net: nn.Module) -> None:
        train(net, self.data.train, self.settings, progress=False)

    def distil(self, net: nn.Module, scale: bool = True, settings: TrainSettings | None = None) -> None:
        objective = Distillation(
            Classification(),
            self.dense,
            weight=self.flags.loss_w_dst,
            temperature=self.flags.tempr_dst,
            scale_gradient=scale,
        )
        train(net, self.data.train, settings or self.settings, objective=objective, progress=False)

    def distil_unscaled(self, net: nn.Module) -> None:
        self.distil(net, scale=False)

    def blocks_distil(self, net: nn.Module) -> None:
        self.blocks(net)
        self.distil(net)

    def groups(self, net: nn.Module | None = None, task: Callable[..., None] | None = None) -> nn.Module:
        """Pruning in groups with a short training after each but the last, then the rest of the epochs."""
        tunes = (len(pocketprune.list_layers(self.dense, self.batches[0][:2])) - 1) // self.flags.group_size
        short = replace(self.settings, epochs=self.flags.epochs / (4 * tunes), lrn_rate=self.flags.lrn_rate / 5)
        rest = replace(self.settings, epochs=self.flags.epochs * 3 / 4)
        fit = task or (lambda net, settings: train(net, self.data.train, settings, progress=False))
        tuned = self.prune(pocketprune.Hooks(tune=lambda net, _: fit(net, short)), group_size=self.flags.group_size)
        fit(tuned, rest)
        return tuned

    def groups_distil(self, net: nn.Module) -> nn.Module:
        return self.groups(task=lambda net, settings: self.distil(net, settings=settings))


ROWS = {
    "none": ("before any recovery", Bench.none),
    "bn": ("+ batch norms re-estimated", Bench.bn),
    "blocks": ("+ blocks reconstructed", Bench.blocks),
    "blocks_bn": ("+ blocks reconstructed, batch norms re-estimated", Bench.blocks_bn),
    "imitate": ("+ imitation of the dense network", Bench.imitate),
    "blocks_imitate": ("+ blocks, then imitation of the dense network", Bench.blocks_imitate),
    "finetune": ("+ {epochs:g} epochs of fine-tuning", Bench.finetune),
    "distil": ("+ {epochs:g} epochs with distillation, scaled by T²", Bench.distil),
    "distil_unscaled": ("+ {epochs:g} epochs with distillation, not scaled", Bench.distil_unscaled),
    "blocks_distil": ("+ blocks, then {epochs:g} epochs with distillation", Bench.blocks_distil),
    "groups": ("group tuning, {epochs:g} epochs in all", Bench.groups),
    "groups_distil": ("group tuning with distillation, {epochs:g} epochs in all", Bench.groups_distil),
}
HEAD = ["MACs", "recovery", "test accuracy", "loss", "processor seconds"]


def measure(bench: Bench, name: str) -> dict[str, object]:
    """One row; the seconds are those of the recovery, for groups with their pruning."""
    title, work = ROWS[name]
    net = copy.deepcopy(bench.pruned)
    began, cpu = time.perf_counter(), time.process_time()
    net = work(bench, net) or net
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    found = evaluate(net, bench.data.test, 500, progress=False)
    share = pocketprune.count_macs(net, bench.batches[0][:2]) / pocketprune.count_macs(
        bench.dense, bench.batches[0][:2]
    )
    return {
        "macs": share,
        "row": name,
        "title": title.format(epochs=bench.flags.epochs),
        "accuracy": found.accuracy,
        "loss": found.loss,
        "seconds": seconds,
        "cpu": cpu,
        "flags": vars(bench.flags),
    }


def shown(row: dict) -> list[str]:
    return [f"{row['macs']:.1%}", row["title"], f"{row['accuracy']:.2%}", f"{row['loss']:.3f}", f"{row['cpu']:.0f}"]


def flags_of() -> object:
    parser = arguments(__doc__)
    parser.add_argument("--resnet_size", type=int, default=20)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.5, 0.3], help="shares of the MACs")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--recover_epochs", type=float, default=1, help="of the imitation")
    parser.add_argument("--recover_lrn_rate", type=float, default=0.001, help="of the imitation, by Adam")
    parser.add_argument("--optimizer", default="adam", choices=("adam", "sgd"))
    parser.add_argument("--lrn_rate", type=float, default=0.002)
    parser.add_argument("--warmup", type=float, default=0.1, help="share of the steps in which the rate rises")
    parser.add_argument("--loss_w_dcy", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=200, help="Adam steps a block")
    parser.add_argument("--group_size", type=int, default=7)
    parser.add_argument("--loss_w_dst", type=float, default=4)
    parser.add_argument("--tempr_dst", type=float, default=4)
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--points", type=int, default=0, help="positions an image; 0 takes all")
    parser.add_argument("--selection", default="obs")
    parser.add_argument("--shared_input", default="keep")
    parser.add_argument("--allocation", default="divergence", choices=("divergence", "uniform"))
    parser.add_argument("--amp", default="off", choices=("off", "bf16"))
    parser.add_argument("--results", type=Path, default=None, help="file that rows are appended to")
    return parser.parse_args()


def main() -> None:
    flags = flags_of()
    rows = []
    for macs in flags.macs:
        bench = Bench(flags, macs)
        for name in flags.rows:
            rows.append(measure(bench, name))
            print(table(HEAD, [shown(rows[-1])]).splitlines()[-1], flush=True)
            if flags.results is not None:
                with flags.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1], default=str) + "\n")
    dense = evaluate(bench.dense, bench.data.test, 500, progress=False)
    print(table(HEAD, [["100 %", "dense", f"{dense.accuracy:.2%}", f"{dense.loss:.3f}", ""], *map(shown, rows)]))
    print(f"\nResNet-{flags.resnet_size}, CIFAR-10, seed {flags.seed}; {machine(flags.device)}")


if __name__ == "__main__":
    main()
