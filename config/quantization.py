"""The settings of --learner quant, and of --enbl_quant after any other learner."""

from dataclasses import dataclass

from config.settings import Concern, flag_of, setting
from pocketprune.common.options import COUNT, NOT_NEGATIVE, POSITIVE, SHARE_OR_ZERO, Interval
from pocketprune.quantization.options import QuantizationOptions


@dataclass(frozen=True)
class QuantizationConfig(Concern):
    """The settings of quantisation to integers."""

    title = "Quantisation (--learner quant, or --enbl_quant after any learner)"

    enbl_quant: bool = setting(False, "at the end, quantise the network that the learner ends with")
    quant_weight_bits: int = flag_of(QuantizationOptions, "weight_bits")
    quant_activation_bits: int = flag_of(QuantizationOptions, "activation_bits")
    quant_nb_images: int = setting(
        512, "training images that ranges and biases are fitted to; labels are not used", accept=COUNT
    )
    quant_correct_bias: bool = flag_of(QuantizationOptions, "correct_bias")
    quant_ignore: str = setting(
        "", "layers that stay in float: names with wildcards, separated by commas", argument="ignore"
    )
    quant_max_drop: float | None = setting(
        None,
        "points of accuracy that may be lost on the validation images; the layers that hurt most stay in float until "
        "that holds; its own: no limit",
        accept=Interval(0, 100),
    )
    quant_sensitivity: bool = setting(False, "list what each layer alone does to the outputs; --quant_max_drop does")
    quant_epochs: float = setting(
        0.0, "epochs of training with quantisers in the network; 0: calibration alone", accept=NOT_NEGATIVE
    )
    quant_lrn_rate: float | None = setting(
        None,
        "learning rate at their start, falling by a cosine; its own: a hundredth of --lrn_rate_init",
        accept=POSITIVE,
    )
    quant_dst: bool = setting(True, "in that training, also learn the softened outputs of the network in floats")
    quant_freeze_bn: float = setting(
        0.5, "share of that training, at its end, in which batch norms keep their statistics", accept=SHARE_OR_ZERO
    )
