"""The settings of the network."""

from dataclasses import dataclass

from config.settings import Concern, setting
from nets import NETS
from nets.resnet import SHORTCUTS
from pocketprune.common.options import Interval


@dataclass(frozen=True)
class NetConfig(Concern):
    """The settings of the network."""

    title = "Network"

    net: str = setting(
        "resnet",
        f"{', '.join(NETS)}, or your own as file.py:callable or module:callable",
    )
    resnet_size: int | None = setting(
        None,
        "layers: 6n + 2 for resnet and plain (20 if not given); 18, 34 or 50 for resnet_imagenet (18)",
        accept=Interval(1, 10000, whole=True),
    )
    resnet_version: int = setting(
        2, "1: post-activation blocks; 2: pre-activation blocks", accept=Interval(1, 2, whole=True)
    )
    resnet_shortcut: str = setting(
        "projection",
        "where a block changes shape: a 1x1 convolution (projection) or zero padding (pad)",
        accept=SHORTCUTS,
    )
    mobilenet_depth_mult: float | None = setting(
        None,
        "share of mobilenet_v1's and mobilenet_v2's channels in every layer",
        accept=Interval(0, 100, low_open=True),
    )
    init_checkpoint: str = setting(
        "",
        "the network to start with: a state dict, or what an earlier run saved, which may be pruned already; none: the "
        "workdir's own dense network, trained first if it has none",
    )
