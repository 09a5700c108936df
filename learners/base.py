"""What every recipe shares: the dense network, training it, measuring it, and what is written about it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import pocketprune
from config import Config
from datasets import Dataset
from learners import state_dict, workdir
from learners.reporting import report
from learners.train_settings import train_settings
from pocketprune.channel_pruning.ratio_list import write_ratio_list
from pocketprune.deploy.drawing import require_plots
from pocketprune.deploy.export import check_extra
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.layers import layers_of
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.distillation import Distillation
from pocketprune.training.distributed import is_main
from pocketprune.training.loop import train
from pocketprune.training.metrics import Recorder, create_recorder, evaluate
from pocketprune.training.state import TrainSettings
from pocketprune.training.tasks import Classification, Task

LATENCY_SECONDS = 2.0  # each network is timed for about this long,
LATENCY_ROUNDS = 11  # in this many turns


class Learner(ABC):
    """A recipe that turns a network and a data set into a trained, and maybe smaller, network.

    `train` is the recipe; the other commands work on what it left in the workdir. Under several processes all
    compute, and the first one writes and speaks.
    """

    stage: ClassVar[str] = "dense"  # of report.STAGES: what `trained_net` is
    phases: ClassVar[tuple[str, ...]] = ("dense",)  # patterns of the names of its checkpoints

    def __init__(self, config: Config, dataset: Dataset, net: nn.Module, device: torch.device) -> None:
        """`net` is freshly initialised and gives the architecture; it is filled or trained in place."""
        self.config, self.dataset, self.net, self.device = config, dataset, net.to(device), device
        self.workdir = config.workdir
        if config.run.plot:
            require_plots()
        self.seconds = dict.fromkeys(("train", "prune", "search", "finetune", "evaluate"), 0.0)

    @abstractmethod
    def train(self) -> dict:
        """Run the recipe; the report, as written to report.json."""

    @abstractmethod
    def trained_net(self) -> nn.Module:
        """The network that `train` ended with. Raises UserError where there is none yet."""

    def evaluate(self) -> dict:
        """Measure the trained network on the test set: one row of a report, also printed."""
        net = self.trained_net()
        row = self.accuracy(net) | self.costs(net)[0]
        self.say(report.stage_table({self.stage: row}, self.config.run.latency_batch))
        return row

    def export(self) -> None:
        """Write the trained network as ONNX, OpenVINO and torch.export files, verified and timed."""
        check_extra()
        net, batch = self.trained_net(), self.images(self.config.run.latency_batch)
        stem = self.workdir / f"{self.stage}_model"
        kinds = {
            ".onnx": pocketprune.export_onnx,
            ".xml": pocketprune.export_openvino,
            ".pt2": pocketprune.export_pt2,
        }
        if is_main():
            files = [write(stem.with_suffix(suffix), net, batch) for suffix, write in kinds.items()]
            report.add(self.workdir / "report.json", "export", report.export_entries(files, len(batch)))
            self.say(report.export_table(files, len(batch)))

    def layers(self) -> None:
        """Print the prunable layers and the channel groups, and write a template of a ratio list."""
        structure = analyse(self.net, self.example)
        layers = layers_of(structure, self.config.channel_pruning.cp_shared_input)
        path = self.workdir / "ratio_template.list"
        if is_main():
            write_ratio_list(path, [layer.name for layer in layers], [1.0] * len(layers))
        self.say(report.layer_listing(layers))
        self.say(f"\n{report.group_listing(structure.groups)}")
        self.plot_groups(structure.groups)
        self.say(f"\nOne preserve ratio for each stands in {path}. Edit it, then prune with")
        self.say(f"  --learner channel --cp_prune_option list --cp_prune_list_file {path}")

    def plot_groups(
        self, groups: Sequence[pocketprune.ChannelGroup] | None = None, pruned: nn.Module | None = None
    ) -> None:
        """With --plot, draw the dense network's channel groups, and what a pruned one has left of them."""
        if self.config.run.plot and is_main():
            path = self.workdir / "channel_groups.png"
            found = groups or pocketprune.find_channel_groups(self.net, self.example)
            pocketprune.draw_groups(path, found, pruned)
            self.say(f"\nChannel groups drawn in {path}")

    def dense_net(self) -> nn.Module:
        """The trained full-precision network: from --init_checkpoint, from the workdir, or trained now."""
        loaded = self.load_dense()
        self.claim()  # not for weights that do not fit
        if not loaded:
            self.train_dense(share=1.0)
        return self.net

    def load_dense(self) -> bool:
        """Fill the network with trained weights where there are any. Raises UserError if they do not fit."""
        given = self.config.net.init_checkpoint
        path = Path(given) if given else self._dense_path
        if not given and not path.exists():
            return False
        source = f"--init_checkpoint={path}" if given else f"--workdir={self.workdir}: {path.name}"
        state_dict.load_into(self.net, path, source=source)
        self.say(f"Dense network: weights of {path}")
        return True

    def train_dense(self, share: float, teacher: nn.Module | None = None) -> None:
        """Train the network for a share of the full schedule and keep its weights for later runs."""
        self.fit(self.net, "dense", self.settings(share), "train", teacher)
        if is_main():
            state_dict.save(self._dense_path, self.net)

    def claim(self) -> None:
        """Take the workdir for this run, or go on with it. Raises UserError where it holds a run of other flags."""
        unfinished = () if self._dense_path.exists() else ("dense",)
        workdir.claim(self.config, (*self.phases, *unfinished))

    def fit(
        self,
        net: nn.Module,
        label: str,
        settings: TrainSettings,
        clock: str,
        teacher: nn.Module | None = None,
    ) -> None:
        """Train `net` in place, or go on with its training; the seconds of all the run's lives go to `clock`."""
        task: Task = Classification(settings.label_smoothing)
        if teacher is not None:
            flags = self.config.distillation
            task = Distillation(
                task,
                teacher,
                weight=flags.loss_w_dst,
                temperature=flags.tempr_dst,
                scale_gradient=flags.dst_scale_gradient,
            )
        self.say(f"Training ({label}): {settings.epochs:g} epochs of {len(self.dataset.train)} images")
        result = train(
            net,
            self.dataset.train,
            settings,
            device=self.device,
            task=task,
            recorder=self.recorder,
            checkpoints=self.checkpoints(label),
            label=label,
        )
        self.seconds[clock] += result.seconds

    def settings(self, share: float) -> TrainSettings:
        """For a share of the full schedule."""
        return train_settings(self.config, share, self.device.type)

    def checkpoints(self, phase: str) -> Checkpoints:
        """The checkpoints of one phase of the run."""
        return Checkpoints(self.workdir / "checkpoints", name=phase, keep=self.config.train.keep_checkpoints)

    def accuracy(self, net: nn.Module) -> dict[str, float]:
        """Accuracy and loss of `net` on the test set."""
        with self.timed("evaluate"):
            metrics = evaluate(net, self.dataset.test, self.config.data.batch_size_eval, device=self.device)
        return {"accuracy": metrics.accuracy, "loss": metrics.loss}

    def costs(self, *nets: nn.Module) -> list[dict[str, float]]:
        """Each network's MACs for one image, parameters, and milliseconds for a batch of `latency_batch`.

        The networks are timed in turns, so that whatever else the machine does slows all of them alike.
        """
        batch = torch.zeros(self.config.run.latency_batch, *self.dataset.input_shape, device=self.device)
        with self.timed("evaluate"):
            once = pocketprune.measure_latency(nets[0], batch, repeats=1)
            repeats = max(1, min(10, round(LATENCY_SECONDS * 1000 / (LATENCY_ROUNDS * once))))
            rounds = [
                [pocketprune.measure_latency(net, batch, repeats=repeats) for net in nets]
                for _ in range(LATENCY_ROUNDS)
            ]
        return [
            {
                "macs": pocketprune.count_macs(net, self.example),
                "params": pocketprune.count_params(net),
                "latency_ms": median(times),
            }
            for net, times in zip(nets, zip(*rounds, strict=True), strict=True)
        ]

    def finish(self, results: dict[str, Any]) -> dict:
        """Complete the recipe's results (stages, layers) to a report, write it and print its table."""
        run, names = self.config.run, (self.config.net.net, self.config.data.dataset, self.config.run.learner)
        head = dict(zip(("net", "dataset", "learner"), names, strict=True)) | {"config": self.config.as_dict()}
        head |= {"device": str(self.device), "seed": run.seed}
        whole = head | results | {"seconds": self.seconds}
        text = report.stage_table(whole, run.latency_batch)
        if is_main():
            report.write(self.workdir / "report.json", whole)
        self.recorder.text("report", "\n".join(f"    {line}" for line in text.splitlines()), 0)
        self.recorder.close()
        written = ", ".join(sorted(path.name for path in self.workdir.iterdir()))
        self.say(f"\n{text}\n\n{self.workdir} holds {written}")
        return whole

    def say(self, text: str) -> None:
        """Print, in the first process."""
        if is_main():
            print(text, flush=True)

    def images(self, count: int) -> Tensor:
        """The first (at most `count`) validation images (n, C, H, W), normalised, on the device."""
        return next(iter(self.dataset.val.batches(count)))[0].to(self.device)

    @cached_property
    def example(self) -> Tensor:
        """Two images to trace networks with."""
        return self.images(2)

    @cached_property
    def recorder(self) -> Recorder:
        """TensorBoard, opened when the recipe first has something to show."""
        return create_recorder(self.workdir / "tensorboard")

    @contextmanager
    def timed(self, clock: str) -> Iterator[None]:
        """Add the seconds spent inside to a clock of the report."""
        began = time.perf_counter()
        yield
        self.seconds[clock] += time.perf_counter() - began

    @property
    def _dense_path(self) -> Path:
        return self.workdir / "checkpoints" / "dense.pt"
