"""Which layers are quantised: all of them, or all but those that hurt most, so that the accuracy is kept."""

from collections.abc import Sequence

from torch import Tensor, nn

from config import Config
from learners.context import RunContext
from learners.quantized import telling
from pocketprune import QuantizationOptions
from pocketprune.common.errors import UserError
from pocketprune.quantization.quantizing import Calibrated, calibrated, leaving_out
from pocketprune.quantization.sensitivity import sensitivities
from pocketprune.training.metrics import evaluate

LOOKED_AT = 128  # images that show what a layer alone does


def options_of(config: Config) -> QuantizationOptions:
    """Return how the flags say to quantise."""
    flags = config.quantization
    return QuantizationOptions(
        weight_bits=flags.quant_weight_bits,
        activation_bits=flags.quant_activation_bits,
        correct_bias=flags.quant_correct_bias,
        ignore=tuple(name.strip() for name in flags.quant_ignore.split(",") if name.strip()),
    )


def calibrated_within(
    run: RunContext, net: nn.Module, batches: Sequence[Tensor], options: QuantizationOptions
) -> Calibrated:
    """Return the network with quantisers; with --quant_max_drop, the worst layers in float until the limit is kept."""
    flags = run.config.quantization
    found = calibrated(net, batches, options)
    if flags.quant_max_drop is None and not flags.quant_sensitivity:
        return found
    rows = sensitivities(found.prepared, _few(batches))
    telling.tell_sensitivities(run, rows)
    if flags.quant_max_drop is None:
        return found
    worst = [row.layer for row in sorted(rows, key=lambda row: -row.divergence)]
    before = _accuracy(run, net)
    for count in _counts(len(worst)):
        if count:
            found = calibrated(net, batches, leaving_out(options, worst[:count]))
        lost = 100 * (before - _accuracy(run, found.converted()))
        if lost <= flags.quant_max_drop:
            held = f"; in float: {', '.join(worst[:count])}" if count else ""
            run.say(f"Quantisation loses {lost:.2f} points on the validation images{held}")
            return found
    raise UserError(
        f"--quant_max_drop={flags.quant_max_drop}: {lost:.2f} points are lost even with one layer quantised"
    )


def _counts(layers: int) -> list[int]:
    """Return the numbers of layers in float to try: 0, 1, 2, 3, 4, 6, 8, 12, ..., all but one."""
    counts = {0, layers - 1, *(2**power for power in range(20)), *(3 * 2**power for power in range(20))}
    return sorted(count for count in counts if count < layers)


def _few(batches: Sequence[Tensor]) -> list[Tensor]:
    images, few = 0, []
    for batch in batches:
        few.append(batch[: LOOKED_AT - images])
        images += len(few[-1])
        if images >= LOOKED_AT:
            break
    return few


def _accuracy(run: RunContext, net: nn.Module) -> float:
    with run.timed("evaluate"):
        return evaluate(net, run.dataset.val, run.config.data.batch_size_eval, device=run.device).accuracy
