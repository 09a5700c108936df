"""PocketFlow's quantisers: weights of 2 to 8 bits, evenly spaced or by codebooks, with bits of each layer searched."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar

from torch import Tensor, nn

from learners.quantized.learner import QuantizationLearner
from pocketprune import QuantizationOptions
from pocketprune.quantization.bits import FULL, BitsEnvironment
from pocketprune.quantization.prepared import PreparedNet
from pocketprune.quantization.quantizing import Calibrated, calibrated
from pocketprune.reporting.tables import table
from pocketprune.search import Budget, Hooks, SearchSettings, search
from pocketprune.training.distributed import is_main

LOOKED_AT = 512  # validation images that score a roll-out


class UniformLearner(QuantizationLearner):
    """network in floats -> (bits searched) -> calibrated -> trained with quantisers. Speed needs --learner quant."""

    name: ClassVar[str] = "uniform"
    prefix: ClassVar[str] = "uql_"
    settings = (*QuantizationLearner.settings, "uniform")
    phases = ("uniform", "uniform_bits")

    def flag(self, name: str) -> Any:
        """Return the value of one of the learner's own flags."""
        return self.run.config.as_dict()[self.prefix + name]

    def options(self) -> QuantizationOptions:
        """Return how the flags say to quantise."""
        return replace(self.shared_options(), per_channel=self.flag("use_buckets"))

    def shared_options(self) -> QuantizationOptions:
        """Return what the two learners have in common."""
        return QuantizationOptions(
            weight_bits=self.flag("weight_bits"),
            activation_bits=self.flag("activation_bits"),
            whole=self.flag("quantize_all_layers"),
        )

    @property
    def epochs(self) -> float:
        """Epochs of training with quantisers."""
        return float(self.flag("quant_epochs"))

    def calibrated(self, net: nn.Module, batches: Sequence[Tensor]) -> Calibrated:
        """Return the network with quantisers, the bits of its layers searched where that is asked for."""
        options = self.options()
        if self.flag("search") == "none":
            return calibrated(net, batches, options)
        bits = self.found_bits(calibrated(net, batches, replace(options, weight_bits=FULL)).prepared)
        self.run.say(table([["layer", "bits"], *([name, str(number)] for name, number in bits.items())]))
        return calibrated(net, batches, replace(options, bits=bits))

    def found_bits(self, prepared: PreparedNet) -> dict[str, int]:
        """Return layer -> bits of its weight, the best found whose mean is what the flags say. Resumable."""
        run, method = self.run, self.flag("search")
        size = run.config.data.batch_size_eval
        found = islice(run.dataset.val.batches(size, seed=run.config.run.seed, shuffle=True), -(-LOOKED_AT // size))
        env = BitsEnvironment(prepared, [(images.to(run.device), labels.to(run.device)) for images, labels in found])
        checkpoints = run.checkpoints(self.phases[1])
        saved = checkpoints.latest()

        def save(state: dict[str, Any]) -> None:
            checkpoints.save(state, len(state["history"]))

        hooks = Hooks(
            csv_path=run.workdir / "bits_search.csv" if is_main() else None,
            save=save if is_main() else None,
            resume=None if saved is None else saved.state,
        )
        rollouts = self.flag("nb_rlouts")
        result = search(
            env,
            Budget("bits", self.flag("equivalent_bits") / FULL),
            method=method,
            settings=SearchSettings(nb_rlouts=rollouts, nb_rlouts_min=rollouts // 4, reward_policy="divergence"),
            seed=run.config.run.seed,
            hooks=hooks,
        )
        run.say(
            f"{method}: {len(result.history)} roll-outs in {result.seconds:.0f} s; divergence "
            f"{result.score.divergence:.4f} at {FULL * result.share:.2f} bits a weight"
        )
        return dict(zip((variable.name for variable in env.variables), result.values, strict=True))


class NonUniformLearner(UniformLearner):
    """The same with codebooks: 2^bits numbers of a layer, which lie anywhere. It saves memory and no time."""

    name: ClassVar[str] = "non-uniform"
    prefix: ClassVar[str] = "nuql_"
    settings = (*QuantizationLearner.settings, "non_uniform")
    phases = ("non-uniform", "non-uniform_bits")

    def options(self) -> QuantizationOptions:
        """Return how the flags say to quantise."""
        return replace(
            self.shared_options(),
            codebook=True,
            codebook_init=self.flag("init_style"),
            codebook_trained=self.flag("opt_mode"),
        )
