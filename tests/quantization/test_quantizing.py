"""Networks in integers: near the floats, loaded to the bit, refused where they do not belong."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import fx, nn

import pocketprune
from pocketprune import QuantizationOptions, UserError, quantize
from pocketprune.quantization.conversion import IntegerWeight, bits_of, convert
from pocketprune.quantization.prepared import PreparedNet
from pocketprune.quantization.quantizers import ActivationQuantizer
from pocketprune.quantization.quantizing import calibrated
from pocketprune.quantization.sensitivity import sensitivities
from tests.quantization.small import Viewing, images, pruned, rewritten, small


@pytest.mark.parametrize("make", [small, pruned, rewritten])
def test_all_forms_of_a_network_stay_near_their_floats_and_load_to_the_bit(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    net = make()
    before = copy.deepcopy(net.state_dict())
    made, x = quantize(net, [images()]), images(32, seed=9)
    with torch.no_grad():
        expected, found = net(x), made(x)
    assert float((found - expected).square().mean()) < 2e-3 * float(expected.var())
    assert not torch.equal(found, expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert isinstance(net, fx.GraphModule) == (make is rewritten)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert not list(made.parameters())
    pocketprune.save(tmp_path / "net.pt", made)
    loaded = pocketprune.load(tmp_path / "net.pt", Viewing() if make is rewritten else small(5))
    with torch.no_grad():
        assert torch.equal(loaded(x), found)
    assert bits_of(loaded)[0] == 8


def test_integers_are_what_training_saw_and_one_step_of_a_code_at_most_apart() -> None:
    found = calibrated(small(), [images()], QuantizationOptions(correct_bias=False))
    trained, made = found.prepared.module().double().eval(), found.converted().double()
    x = images(16, seed=3).double()
    with torch.no_grad():
        assert torch.allclose(trained(x), made(x), atol=1e-9)


def test_codes_survive_the_batch_norm_behind_them() -> None:
    prepared = calibrated(small(), [images()], QuantizationOptions()).prepared
    made = convert(prepared).get_submodule("integers.one")
    assert isinstance(made, IntegerWeight)
    weight, scale = prepared.net.get_parameter("one.weight"), prepared.quantizers.weight("one").scale
    codes = (weight / scale.view(-1, 1, 1, 1)).clamp(-127, 127).round()
    assert torch.equal(made.codes[1:].float(), codes[1:])
    assert torch.equal(made.codes[0].float(), -codes[0])  # its batch norm's scale is negative


def test_bias_correction_brings_the_mean_outputs_nearer() -> None:
    net, x = small(), images(256)
    options = {"weight_bits": 3, "activation_bits": 8}
    gaps = []
    for correct in (False, True):
        made = quantize(net, [x], QuantizationOptions(correct_bias=correct, **options))
        with torch.no_grad():
            gaps.append(float((made(x) - net(x)).mean(0).square().sum()))
    assert gaps[1] < 0.5 * gaps[0]


def test_each_layer_alone_diverges_less_than_all_and_more_at_fewer_bits() -> None:
    batches = [images()]
    prepared = calibrated(small(), batches, QuantizationOptions(bits={"one": 2})).prepared
    rows = {row.layer: row for row in sensitivities(prepared, batches)}
    assert list(rows) == ["stem", "one", "deep", "two", "down", "head"]
    assert rows["one"].bits == 2
    assert rows["one"].divergence > 2 * max(row.divergence for name, row in rows.items() if name != "one")
    assert rows["stem"].params == 8 * 3 * 9
    assert all(part.enabled for part in prepared.quantizers.all_activations().values())


def test_layers_asked_for_stay_in_float() -> None:
    made = quantize(small(), [images()], QuantizationOptions(ignore=("st*", "head")))
    assert {name for name, _ in made.named_parameters()} == {"stem.weight", "stem.bias", "norm.weight", "norm.bias",
                                                             "head.weight", "head.bias"}  # fmt: skip
    assert 8 < bits_of(made)[0] < 32


def test_what_cannot_be_quantised_is_named() -> None:
    class Upsampling(nn.Sequential):
        pass

    net = Upsampling(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(4, 2, 1)).eval()
    prepared = PreparedNet(net, images(2), QuantizationOptions())
    assert prepared.in_float == ["ConvTranspose2d (1)"]
    assert [layer.name for layer in prepared.layers] == ["0", "2"]


def test_refusals() -> None:
    net = small()
    with pytest.raises(UserError, match=r"^batches: there are none; ranges are measured on images"):
        quantize(net, [])
    with pytest.raises(UserError, match=r"^batches: all values of all 8 images are 0; no range follows"):
        quantize(net, [torch.zeros(8, 3, 8, 8)])
    with pytest.raises(UserError, match=r"^weight_bits: 9 given; expected a whole number in \[2, 8\]"):
        QuantizationOptions(weight_bits=9)
    with pytest.raises(UserError, match=r"^ignore: no layer 'stme'.*stem"):
        quantize(net, [images()], QuantizationOptions(ignore=("stme",)))
    with pytest.raises(UserError, match=r"^net: it is in integers already"):
        quantize(quantize(net, [images()]), [images()])
    with pytest.raises(UserError, match=r"^net: it has no convolution or linear layer"):
        quantize(nn.Sequential(nn.Flatten(), nn.ReLU()), [images()])


def test_a_tampered_step_is_refused(tmp_path: Path) -> None:
    pocketprune.save(tmp_path / "net.pt", quantize(small(), [images()]))
    content = torch.load(tmp_path / "net.pt", weights_only=True)
    for change, message in (
        ({"layers": {"one": 99}}, "the step of its quantisation is malformed"),
        ({"layers": {"one": 8}}, "quantised where this PocketPrune or PyTorch would not"),
        ({"example": (({"shape": [2, 5], "dtype": "float32"},), {})}, "example_inputs"),
    ):
        data = content["steps"][0]["data"] | change
        torch.save(content | {"steps": [content["steps"][0] | {"data": data}]}, tmp_path / "bad.pt")
        with pytest.raises(UserError, match=message):
            pocketprune.load(tmp_path / "bad.pt", small())


def test_a_range_is_that_of_all_places_of_a_map() -> None:
    part = ActivationQuantizer(8, torch.device("cpu"))
    part.samples = []
    values = torch.zeros(8, 4, 64, 64)
    values[:, :, :, 1:-1] = 1 + torch.rand(8, 4, 64, 62, generator=torch.Generator().manual_seed(0))
    part(values)  # every 16th value, for one, is only met in every 16th column
    seen = torch.cat(part.samples)
    assert float((seen > 0).float().mean()) == pytest.approx(62 / 64, abs=0.01)
    part.fit(seen)
    assert float(part.range()[1]) == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"bits": {"stem": 9}}, r"^bits: 9 given; expected a whole number in \[2, 8\]$"),
        ({"bits": {"stam": 4}}, r"^bits: no layer 'stam'; did you mean 'stem'\?$"),
        ({"ignore": "stem"}, "^ignore: 'stem' given; a tuple of names is accepted$"),
        ({"ignore": ("*",)}, "^ignore: no layer is left to quantise$"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, object], error: str) -> None:
    with pytest.raises(UserError, match=error):
        quantize(small(), [images(2)], QuantizationOptions(**options))  # type: ignore[arg-type]


def test_images_that_no_range_follows_from_and_networks_in_integers() -> None:
    with pytest.raises(UserError, match=r"^batches: images have values that are NaN or infinite$"):
        quantize(small(), [images(2), images(2) / 0])
    with pytest.raises(UserError, match=r"^batches\[1\]: \(2x4x8x8 float32\): the network does not take it: "):
        quantize(small(), [images(2), torch.zeros(2, 4, 8, 8)])
    made = quantize(small(), [images(2)])
    for prune in (
        lambda: pocketprune.prune_channels(made, [images(2)], 0.5),
        lambda: pocketprune.compress(made, images(2), {"schedule": {"name": "one_shot", "target": 0.5}}),
    ):
        with pytest.raises(UserError, match=r"^net: it is in integers already; a network in floats is accepted$"):
            prune()
