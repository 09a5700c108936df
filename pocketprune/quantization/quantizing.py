"""A network in integers from images alone: the whole way in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.steps import refuse_integers
from pocketprune.common.wrappers import unwrapped
from pocketprune.graph.accepting import check_accepted
from pocketprune.graph.admission import refuse_others
from pocketprune.quantization.calibration import bias_corrections, calibrate
from pocketprune.quantization.conversion import convert
from pocketprune.quantization.options import QuantizationOptions
from pocketprune.quantization.prepared import PreparedNet


@dataclass(frozen=True)
class Calibrated:
    """A network with its quantisers, and what its biases need.

    Attributes:
        prepared: the network with its quantisers, which can be trained.
        corrections: name of a layer -> what its outputs need (n,).
    """

    prepared: PreparedNet
    corrections: dict[str, Tensor]

    def converted(self) -> nn.Module:
        """Return the network in integers."""
        return convert(self.prepared, self.corrections)


def quantize(net: nn.Module, batches: Iterable[Tensor], options: QuantizationOptions | None = None) -> nn.Module:
    """Return a network in integers, ranges and biases fitted to images without labels. The network stays as it is.

    It computes in PyTorch with real numbers what integer kernels compute from its codes; `export_onnx` and
    `export_openvino` write it for runtimes that have such kernels.

    Args:
        net: the network, dense or pruned.
        batches: inputs (b, ...), some hundred images.
        options: how; the defaults by default.

    Raises:
        UserError: the network is in integers already, cannot be traced, or has nothing to quantise; or the images are
            missing or all equal.
    """
    return calibrated(net, list(batches), options or QuantizationOptions()).converted()


def calibrated(net: nn.Module, batches: Sequence[Tensor], options: QuantizationOptions) -> Calibrated:
    """Return a network with its quantisers, ranges and scales fitted; see `quantize`. It has the network's tensors."""
    refuse_others(net)
    net = unwrapped(net)
    refuse_integers(net)
    if not batches:
        raise UserError("there are none; ranges are measured on images of the training split", argument="batches")
    prepared = PreparedNet(net, batches[0][:2], options)
    check_accepted(prepared.traced, batches)
    calibrate(prepared, batches)
    return Calibrated(prepared, bias_corrections(prepared, batches) if options.correct_bias else {})


def leaving_out(options: QuantizationOptions, layers: Iterable[str]) -> QuantizationOptions:
    """Return options by which these layers stay in float too."""
    return replace(options, ignore=(*options.ignore, *layers))
