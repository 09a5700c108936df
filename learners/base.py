"""What every learner shares: train, evaluate, export, and the report of what they measured."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

import pocketprune
from learners import workdir
from learners.context import RunContext
from learners.listing import show_layers
from learners.measuring import Row, costs, quality
from learners.reporting import exports
from learners.sensitivity import write_sensitivity
from learners.start import DENSE, load_start, unfinished_phases
from pocketprune.common.errors import UserError
from pocketprune.compat.distiller.summaries import model_summary
from pocketprune.deploy.export import check_extra
from pocketprune.reporting import report
from pocketprune.reporting.run_page import write_page
from pocketprune.reporting.stages import COLUMNS, Column, stage_table
from pocketprune.training.distributed import is_main


class Learner(ABC):
    """Turns a network and a data set into a trained, and maybe smaller, network.

    `train` does the work; `evaluate` and `export` take what it left in the workdir.

    Attributes:
        stages: the networks that it measures, in order, the one that it ends with last: key in report.json -> title in
            the table. The last key names its files too.
        columns: how measured values are shown; those of other names are shown plainly.
        settings: the concerns of Config that decide what it ends with. A run is resumed if these are the same.
        phases: patterns of the names of its checkpoints.
    """

    stages: ClassVar[Mapping[str, str]]
    columns: ClassVar[Mapping[str, Column]] = COLUMNS
    settings: ClassVar[tuple[str, ...]] = ("run", "data", "net", "train", "distillation")
    phases: ClassVar[tuple[str, ...]]

    def __init__(self, run: RunContext) -> None:
        self.run = run

    @abstractmethod
    def train(self) -> dict[str, Any]:
        """Do the work. Return the report, as written to report.json."""

    def trained_net(self) -> nn.Module:
        """Return the network that `train` ended with. Raises UserError where there is none yet."""
        workdir.refuse_other_net(self.run)
        return pocketprune.load(self.artifact, self.run.net)

    def start(self) -> nn.Module | None:
        """Return the trained network to start with; None where it is still to be trained. See `load_start`.

        Raises:
            UserError: --init_checkpoint is the file that this run would write over.
        """
        given = self.run.config.net.init_checkpoint
        if given and Path(given).resolve() == self.artifact.resolve():
            raise UserError(f"--init_checkpoint={given}: this run would write over it; give another --workdir")
        return load_start(self.run)

    def result(self, _net: nn.Module) -> str:
        """Return which of the stages the trained network is."""
        return list(self.stages)[-1]

    @property
    def artifact(self) -> Path:
        """The file of the network that `train` ends with."""
        return self.run.workdir / f"{list(self.stages)[-1]}_model.pt"

    def save(self, net: nn.Module) -> None:
        """Write the network that `train` ends with."""
        if is_main():
            pocketprune.save(self.artifact, net)

    def evaluate(self) -> Row:
        """Measure the trained network on the test set. Return its row of a report, also printed."""
        net = self.trained_net()
        row = quality(self.run, net) | costs(self.run, net)[0]
        self.run.say(self._table({self.stages[self.result(net)]: row}))
        return row

    def export(self) -> None:
        """Write the trained network as ONNX, OpenVINO and torch.export files, verified and timed."""
        check_extra()
        net = self.trained_net()
        exports.write_files(self.run, net, stem=f"{self.result(net)}_model")

    def looked_at(self) -> nn.Module:
        """Return the network that is looked at: the trained one with --exec_mode eval, else what a run starts with."""
        if self.run.config.run.exec_mode == "eval":
            return self.trained_net()
        return load_start(self.run) or self.run.net

    def summarise(self) -> None:
        """Print the summary of the network that --summary names."""
        self.run.say(model_summary(self.looked_at(), self.run.config.run.summary, self.run.example))

    def measure_sensitivity(self) -> None:
        """Mask one weight at a time, measure the network, and write what comes out."""
        write_sensitivity(self.run, self.looked_at())

    def layers(self) -> None:
        """Show what can be pruned, and write a template to edit."""
        show_layers(self.run)

    def claim(self, *, dense: bool | None = None, teacher: bool = False) -> None:
        """Take the workdir for this run, or go on with it.

        Args:
            dense: whether the run trains the workdir's dense network; by default if that is missing and no other start
                is given.
            teacher: whether that learns from a teacher.

        Raises:
            UserError: the workdir holds another run.
        """
        run, unfinished = self.run, unfinished_phases(self.run)
        if dense is None:
            dense = bool(unfinished) and not run.config.net.init_checkpoint
        whose = workdir.dense_identity(run, teacher=teacher) if dense else None
        workdir.claim(run, self.settings, (*self.phases, *unfinished), dense=whose)

    def finish(
        self,
        stages: Mapping[str, Row],
        *,
        rows: Mapping[str, Row] | None = None,
        layers: Iterable[Any] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write the report, print its table. Return the report.

        Args:
            stages: the networks measured, by the keys of `self.stages`.
            rows: the table's rows by their titles, where they are not just the stages.
            layers: what became of each layer, for report.json.
            facts: what else the learner has found out, for report.json.
        """
        run, config = self.run, self.run.config
        rows = rows or {self.stages[key]: row for key, row in stages.items()}
        whole = {
            "net": config.net.net,
            "dataset": config.data.dataset,
            "learner": config.run.learner,
            "config": config.as_dict(),
            "command": config.command_line(),
            "phases": [*self.phases, DENSE],
            "device": str(run.device),
            "seed": config.run.seed,
            "metric": run.metric,
            "measured_on": "the test set" if run.task is None else "the task's own data",
            **stages,
            "stages": [{"name": title, **row} for title, row in rows.items()],
            "layers": list(layers),
            **(facts or {}),
            "seconds": run.seconds,
        }
        if is_main():
            report.write(run.report_path, whole)
        text = self._table(rows)
        run.recorder.text("report", "\n".join(f"    {line}" for line in text.splitlines()), 0)
        run.recorder.close()
        if is_main():
            write_page(run.workdir)
        written = ", ".join(sorted(path.name for path in run.workdir.iterdir() if not path.name.startswith(".")))
        run.say(f"\n{text}\n\n{run.workdir} holds {written}")
        return whole

    def _table(self, rows: Mapping[str, Row]) -> str:
        return stage_table(rows, self.columns, latency_batch=self.run.config.run.latency_batch)
