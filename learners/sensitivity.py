"""The sensitivity of a network to the masking of each of its weights, as files."""

from torch import nn

from learners.context import RunContext
from pocketprune.common.figures import has_plots
from pocketprune.compression.sensitivity import draw, measure_sensitivity, write_csv
from pocketprune.training.distributed import is_main
from pocketprune.training.metrics import evaluate


def write_sensitivity(run: RunContext, net: nn.Module) -> None:
    """Measure a network with one weight masked at a time, on the validation images, and write what comes out."""
    batch = run.config.data.batch_size_eval

    def judge(masked: nn.Module) -> dict[str, float]:
        found = evaluate(masked, run.dataset.val, batch, device=run.device, progress=False)
        top5 = {} if found.top5 is None else {"top5": found.top5}
        return {"top1": found.accuracy, "loss": found.loss, **top5}

    net = net.to(run.device)
    found = measure_sensitivity(net, judge, structure=run.config.run.sensitivity)
    if not is_main():
        return
    path = run.workdir / "sensitivity.csv"
    write_csv(path, found)
    if has_plots():
        draw(path.with_suffix(".png"), found, "top5" if "top5" in found[0].measured else "top1")
    run.say(f"{len(found)} measurements of {len({each.parameter for each in found})} weights in {path}")
