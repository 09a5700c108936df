"""The settings of quantisation: --learner quant, --enbl_quant after any other learner, PocketFlow's two learners."""

from dataclasses import dataclass

from config.settings import Concern, flag_of, setting
from pocketprune.common.options import COUNT, NOT_NEGATIVE, POSITIVE, SHARE_OR_ZERO, Interval
from pocketprune.quantization.options import ACTIVATION_BITS, BITS, CODEBOOKS, TRAINED, QuantizationOptions
from pocketprune.search import SEARCHES


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


SEARCH = ("none", *SEARCHES)
SEARCHED = (
    "search the bits of each layer, {0}_equivalent_bits on average: dp, ddpg (reinforcement learning, as PocketFlow's "
    "{0}_enbl_rl_agent) or another search; none: the same for all"
)


@dataclass(frozen=True)
class UniformConfig(Concern):
    """The settings of --learner uniform. Names and defaults are PocketFlow's."""

    title = "Uniform quantisation, simulated (--learner uniform)"

    uql_weight_bits: int = setting(4, "bits of a weight", accept=BITS, argument="uql.weight_bits")
    uql_activation_bits: int = setting(
        32, "bits of an activation, 2 to 8; 32: they stay in float", accept=ACTIVATION_BITS,
        argument="uql.activation_bits",
    )  # fmt: skip
    uql_use_buckets: bool = setting(False, "a scale for each output channel, in place of one for a whole layer")
    uql_quant_epochs: float = setting(60.0, "epochs of training with quantisers; 0: none", accept=NOT_NEGATIVE)
    uql_quantize_all_layers: bool = setting(False, "quantise the first and the last layer as well")
    uql_search: str = setting("none", SEARCHED.format("uql"), accept=SEARCH)
    uql_equivalent_bits: float = setting(4.0, "mean bits of a weight that the search may spend", accept=Interval(2, 8))
    uql_nb_rlouts: int = setting(200, "roll-outs of the search", accept=COUNT)


@dataclass(frozen=True)
class NonUniformConfig(Concern):
    """The settings of --learner non-uniform. Names and defaults are PocketFlow's."""

    title = "Quantisation by codebooks, for size and not for speed (--learner non-uniform)"

    nuql_weight_bits: int = setting(4, "bits of a weight", accept=BITS, argument="nuql.weight_bits")
    nuql_activation_bits: int = setting(
        32, "bits of an activation, 2 to 8; 32: they stay in float", accept=ACTIVATION_BITS,
        argument="nuql.activation_bits",
    )  # fmt: skip
    nuql_init_style: str = setting(
        "quantile", "a codebook's numbers at first: at quantiles of the weights, or evenly spaced (uniform)",
        accept=CODEBOOKS,
    )  # fmt: skip
    nuql_opt_mode: str = setting(
        "weights", "what training moves: the weights between the numbers, the numbers (clusters), or both",
        accept=TRAINED,
    )  # fmt: skip
    nuql_quant_epochs: float = setting(60.0, "epochs of training with quantisers; 0: none", accept=NOT_NEGATIVE)
    nuql_quantize_all_layers: bool = setting(False, "quantise the first and the last layer as well")
    nuql_search: str = setting("none", SEARCHED.format("nuql"), accept=SEARCH)
    nuql_equivalent_bits: float = setting(4.0, "mean bits of a weight that the search may spend", accept=Interval(2, 8))
    nuql_nb_rlouts: int = setting(200, "roll-outs of the search", accept=COUNT)
