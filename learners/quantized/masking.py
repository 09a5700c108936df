"""Quantisers in a network that is trained with masks: what the masks leave also learns to be in few bits."""

from torch import nn

from learners.context import RunContext
from learners.quantized.choosing import options_of
from learners.quantized.telling import calibration_images
from pocketprune.quantization.quantizing import calibrated
from pocketprune.quantization.training import QuantizationAware
from pocketprune.training.callbacks import Callback


def quantisers(run: RunContext, net: nn.Module) -> list[Callback]:
    """Return the callback that puts quantisers into a network while it is trained; none where that is not asked for.

    It comes after the masks: these zero the tensors, and quantisers read the tensors.
    """
    if not run.config.filter_pruning.quant_while_masking:
        return []
    return [QuantizationAware(calibrated(net, calibration_images(run), options_of(run.config)).prepared, 0.0)]
