"""What quantisation did: printed, written to the workdir, recorded, drawn."""

import csv
import io
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from learners.context import RunContext
from pocketprune.common.figures import has_plots, new_figure, pixels
from pocketprune.common.files import write_atomically
from pocketprune.quantization.prepared import PreparedNet
from pocketprune.quantization.sensitivity import Sensitivity
from pocketprune.reporting.tables import table
from pocketprune.training.distributed import is_main

SHOWN = 10  # most sensitive layers in the printed table


def calibration_images(run: RunContext) -> list[Tensor]:
    """Return unaugmented images of the training split in batches, the same in every process."""
    wanted, size = run.config.quantization.quant_nb_images, run.config.data.batch_size
    found = run.dataset.train.batches(size, seed=run.config.run.seed, shuffle=True)
    batches = [images.to(run.device) for images, _ in islice(found, -(-wanted // size))]
    left = wanted - sum(map(len, batches[:-1]))
    return [*batches[:-1], *(batch[:left] for batch in batches[-1:])]


def tell(run: RunContext, prepared: PreparedNet) -> None:
    """Print what is quantised and what stays in float."""
    bits = prepared.step.layers.values()
    values = len(prepared.step.activations)
    span = f"{min(bits)}" if min(bits) == max(bits) else f"{min(bits)} to {max(bits)}"
    run.say(f"Quantised: {len(bits)} layers, weights of {span} bits, {values} activations")
    if prepared.in_float:
        run.say(f"In float: {', '.join(prepared.in_float)}")


def tell_sensitivities(run: RunContext, rows: Sequence[Sensitivity]) -> None:
    """Print the layers that hurt most, write all of them to quant_sensitivity.csv, and draw them."""
    worst = sorted(rows, key=lambda row: -row.divergence)
    cells = [
        [row.layer, str(row.bits), str(row.params), f"{row.divergence:.2e}", f"{row.weight_error:.1e}"] for row in worst
    ]
    head = ["layer, quantised alone", "bits", "weights", "divergence", "weight error"]
    run.say(table([head, *cells[:SHOWN]]))
    text = io.StringIO()
    csv.writer(text).writerows([["layer", "bits", "params", "divergence", "weight_error"], *(
        [row.layer, row.bits, row.params, row.divergence, row.weight_error] for row in rows
    )])  # fmt: skip
    if not is_main():
        return
    write_atomically(run.workdir / "quant_sensitivity.csv", text.getvalue().encode())
    if has_plots():
        figure = new_figure(max(5.0, 0.3 * len(rows) + 1), 4.0)
        axes = figure.add_subplot()
        axes.bar(range(len(rows)), [max(row.divergence, 1e-12) for row in rows], color="#2662a6")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:.0e}")  # the default would need fonts for mathematics
        axes.yaxis.set_minor_formatter("")
        axes.set_ylabel("divergence of the outputs, quantised alone")
        axes.set_xticks(range(len(rows)), [row.layer for row in rows], rotation=90, fontsize=6)
        run.recorder.image("quantization/sensitivity", pixels(figure), 0)
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        write_atomically(run.workdir / "quant_sensitivity.png", picture.getbuffer())


def record_ranges(run: RunContext, prepared: PreparedNet) -> None:
    """Record the range of every activation, and the distribution of every layer's scales."""
    for number, part in enumerate(prepared.quantizers.all_activations().values()):
        low, high = part.range()
        run.recorder.record("quantization/low", float(low.detach()), number)
        run.recorder.record("quantization/high", float(high.detach()), number)
    for number, layer in enumerate(prepared.layers):
        learned = torch.cat([p.detach().flatten() for p in prepared.quantizers.weight(layer.key).parameters()])
        run.recorder.histogram("quantization/weight_scales", learned.cpu().numpy(), number)
