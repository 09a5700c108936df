"""Quantisation: a trained network, dense or pruned, in integers, by calibration and, if asked for, by training."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

import pocketprune
from config import short_name
from learners.base import Learner
from learners.context import RunContext
from learners.fitting import fit
from learners.measuring import Row, accuracy, costs
from learners.quantized import exporting, telling
from learners.quantized.choosing import calibrated_within, options_of
from learners.quantized.measuring import COLUMNS, PACKED, sizes
from learners.start import train_dense
from learners.teacher import named_teacher
from learners.train_settings import train_settings
from pocketprune import QuantizationOptions
from pocketprune.common.errors import UserError
from pocketprune.deploy.export import check_extra
from pocketprune.quantization.conversion import convert
from pocketprune.quantization.prepared import PreparedNet
from pocketprune.quantization.quantizing import Calibrated
from pocketprune.quantization.training import QuantizationAware
from pocketprune.training.distributed import is_main
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings

NAME, AFTER = "quant", "quant_after_"


class QuantizationLearner(Learner):
    """network in floats -> calibrated -> (trained with quantisers), each measured on the test set.

    Attributes:
        first: the learner whose result is quantised; None: the network that the run starts with is.
        name: that of its run in the workdir.
    """

    first: ClassVar[type[Learner] | None] = None
    name: ClassVar[str] = NAME

    stages: ClassVar[Mapping[str, str]] = {"dense": "float", "calibrated": "calibrated", "quantized": "final"}
    columns = COLUMNS | PACKED
    settings = (*Learner.settings, "quantization")
    phases: ClassVar[tuple[str, ...]] = (NAME,)

    def __init__(self, run: RunContext) -> None:
        self.after = None if self.first is None else self.first(run)
        named = replace(run.config, run=replace(run.config.run, learner=self.name))
        super().__init__(replace(run, config=named))

    def train(self) -> dict[str, Any]:
        """Quantise the network that the run starts with, or that the other learner ends with. Return the report."""
        run = self.run
        self.options()  # before any work: they may be wrong
        named = named_teacher(run)
        net, earlier = self.start_in_floats()
        batches = telling.calibration_images(run)
        with run.timed("quantize"):
            found = self.calibrated(net, batches)
            calibrated = found.converted()
        telling.tell(run, found.prepared)
        float_row = accuracy(run, net) | costs(run, net)[0] | sizes(run, net)
        rows = {"dense" if self.after is None else "float": float_row, "calibrated": self.row(calibrated, float_row)}
        rows["quantized"], final = rows["calibrated"], calibrated
        self.keep_float(net)
        if (settings := _settings(run, self.epochs)) is not None:
            teacher = (copy.deepcopy(net) if named is None else named) if run.config.quantization.quant_dst else None
            final = self.tune(found.prepared, settings, teacher)
            rows["quantized"] = self.row(final, float_row)
        self.save(final)
        telling.record_ranges(run, found.prepared)
        report = {key: earlier[key] for key in self.stages if key in earlier}
        facts = {"quantization": {"layers": found.prepared.step.layers, "in_float": found.prepared.in_float}}
        return self.finish(report | rows, layers=earlier.get("layers", ()), facts=facts)

    def options(self) -> QuantizationOptions:
        """Return how the flags say to quantise. Raises UserError for flags that contradict each other."""
        return options_of(self.run.config)

    @property
    def epochs(self) -> float:
        """Epochs of training with quantisers."""
        return self.run.config.quantization.quant_epochs

    def calibrated(self, net: nn.Module, batches: Sequence[Tensor]) -> Calibrated:
        """Return the network with quantisers, ranges and scales fitted to images without labels."""
        return calibrated_within(self.run, net, batches, self.options())

    def start_in_floats(self) -> tuple[nn.Module, dict[str, Any]]:
        """Return the network to quantise, and the report of the learner that it comes from, if there is one."""
        run = self.run
        if self.after is not None:
            report = self.after.train()
            net = self.after.trained_net()
            self.claim(dense=False)
            return net, report
        start = self.start()
        self.claim()
        return (train_dense(run, run.net) if start is None else start), {}

    def tune(self, prepared: PreparedNet, settings: TrainSettings, teacher: nn.Module | None) -> nn.Module:
        """Train with quantisers, or go on with that. Return the network in integers."""
        part = QuantizationAware(prepared, self.run.config.quantization.quant_freeze_bn)
        fit(self.run, prepared.net, self.name, settings, "finetune", teacher=teacher, callbacks=[part])
        return convert(prepared)

    def row(self, net: nn.Module, float_row: Row) -> Row:
        """Return the row of a network in integers. How fast it is, a runtime with integer kernels tells: `export`."""
        same = {name: float_row[name] for name in ("macs", "params")}
        return accuracy(self.run, net) | same | sizes(self.run, net)

    def keep_float(self, net: nn.Module) -> None:
        """Write the network in floats beside, for comparison when it is exported."""
        if is_main():
            pocketprune.save(self.run.workdir / exporting.FLOAT_FILE, net)

    def trained_net(self) -> nn.Module:
        """Return the network in integers. Raises UserError where there is none yet."""
        if not self.artifact.exists():
            raise UserError(
                f"--workdir={self.run.workdir}: holds no {self.artifact.name}; quantise first (--exec_mode train)"
            )
        return super().trained_net()

    def evaluate(self) -> Row:
        """Measure the network in integers on the test set. Return its row of a report, also printed."""
        net = self.trained_net()
        row = accuracy(self.run, net) | sizes(self.run, net)
        self.run.say(self._table({self.stages[self.result(net)]: row}))
        return row

    def export(self) -> None:
        """Write the network in integers and in floats for runtimes with integer kernels; measure both there."""
        check_extra()
        exporting.write_both(self.run, self.trained_net())


def quantized_after(name: str, first: type[Learner]) -> type[QuantizationLearner]:
    """Return the learner that quantises what the learner `first`, called `name`, ends with."""
    own = QuantizationLearner
    known = f"{AFTER}{short_name(name)}"
    before, after = list(first.stages)[:-1], {key: own.stages[key] for key in ("calibrated", "quantized")}
    return type(
        f"Quantized{first.__name__}",
        (own,),
        {
            "first": first,
            "name": known,
            "stages": {key: first.stages[key] for key in before} | {"float": "float"} | after,
            "settings": tuple(dict.fromkeys((*first.settings, *own.settings))),
            "phases": (known,),
        },
    )


def _settings(run: RunContext, epochs: float) -> TrainSettings | None:
    """Return the settings of the training with quantisers; None for no epochs."""
    flags = run.config.quantization
    if not epochs:
        return None
    full = train_settings(run.config, 1.0, run.device.type)
    rate = full.lrn_rate / 100 if flags.quant_lrn_rate is None else flags.quant_lrn_rate
    return replace(full, epochs=epochs, lrn_rate=rate, schedule=Cosine(0.0))
