"""Bits of each layer as variables of a search, and codebooks."""

import pytest
import torch

from pocketprune import QuantizationOptions, UserError, quantize
from pocketprune.numerics.integers import codebook, codebook_codes
from pocketprune.quantization.bits import BitsEnvironment
from pocketprune.quantization.quantizers import CodebookQuantizer
from pocketprune.quantization.quantizing import calibrated
from pocketprune.search import Budget, SearchSettings, search
from tests.quantization.small import images, small


def test_the_search_spends_bits_where_they_matter_and_meets_the_budget() -> None:
    net, x = small(), images(64, seed=5)
    with torch.no_grad():
        net.head.weight[0] *= 30  # a scale for the whole layer then leaves few codes for the others
        labels = net(x).argmax(1)
    options = QuantizationOptions(activation_bits=32, per_channel=False)
    env = BitsEnvironment(calibrated(net, [images()], options).prepared, [(x, labels)])
    sizes = [net.get_parameter(f"{variable.name}.weight").numel() for variable in env.variables]
    assert env.cost([8] * 6) == 8 * sum(sizes)
    full, few = env.score([8] * 6), env.score([2] * 6)
    assert env.score([8] * 6) == full
    assert full.divergence < few.divergence
    curve = env.error_curve(1)
    assert curve[0] == curve[1] == 1
    assert bool((curve[2:-1] >= curve[3:]).all())
    settings = SearchSettings(nb_rlouts=20, nb_rlouts_min=5, reward_policy="divergence")
    found = search(env, Budget("bits", 0.5, tolerance=0.02), method="dp", settings=settings)
    assert abs(found.share - 0.5) < 0.02
    assert found.score.divergence <= env.score([4] * 6).divergence


def test_a_codebook_holds_the_nearest_number_and_trains_what_is_asked_for() -> None:
    weight = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    numbers = codebook(weight, 3, "quantile")
    codes = codebook_codes(weight, numbers)
    assert torch.equal(codes.long(), (weight.unsqueeze(2) - numbers).abs().argmin(2))
    assert codes.unique(return_counts=True)[1].min() > 5
    assert codebook(weight, 2, "uniform").diff().std() < 1e-6
    for trained, moved in (("weights", (True, False)), ("clusters", (False, True)), ("both", (True, True))):
        quantizer, leaf = CodebookQuantizer(weight, 3, "quantile", trained), weight.clone().requires_grad_()
        made = quantizer(leaf)
        assert torch.equal(made.detach(), numbers[codes.long()])
        made.square().sum().backward()
        assert leaf.grad is not None
        assert quantizer.numbers.grad is not None
        assert (bool(leaf.grad.any()), bool(quantizer.numbers.grad.any())) == moved


def test_activations_and_outer_layers_may_stay_in_float() -> None:
    made = quantize(small(), [images()], QuantizationOptions(activation_bits=32, weight_bits=3, whole=False))
    assert {name.split(".")[0] for name, _ in made.named_parameters()} == {"stem", "norm", "head"}
    with pytest.raises(UserError, match=r"^activation_bits: 16 given; expected a whole number in \[2, 8\], or 32"):
        QuantizationOptions(activation_bits=16)
