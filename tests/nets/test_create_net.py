"""Names, a user's own networks, and the mistakes people make with both."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nets import NETS, create_net
from pocketprune.common.errors import UserError

OWN = """
from torch import nn
from neighbour import HIDDEN

def sized(num_classes, input_shape):
    pixels = input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, HIDDEN), nn.Linear(HIDDEN, num_classes))

def fixed():
    return nn.Conv2d(1, 5, 3)

def number():
    return 3

def unwilling(width):
    return nn.Conv2d(1, width, 3)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("HIDDEN = 6\n")
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def _create(name: str, **options: object) -> nn.Module:
    return create_net(name, num_classes=7, input_shape=(1, 8, 8), **options)


def test_a_users_callable_gets_the_keywords_it_accepts(own: Path) -> None:
    assert _create(f"{own}:sized", resnet_size=20)(torch.zeros(2, 1, 8, 8)).shape == (2, 7)
    assert isinstance(_create(f"{own}:fixed"), nn.Conv2d)


def test_a_module_and_callable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(_create("nets.lenet:lenet"), nn.Sequential)
    (tmp_path / "beside_the_caller.py").write_text("from torch import nn\nnet = lambda: nn.Flatten()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert isinstance(_create("beside_the_caller:net"), nn.Flatten)


def test_options_left_out_are_the_networks_own() -> None:
    assert len(create_net("resnet_imagenet", num_classes=3, input_shape=(3, 32, 32)).layer3) == 2
    assert len(_create("resnet").layer3) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnt", "did you mean resnet?"),
        ("vgg", "did you mean vgg16_bn?"),
        ("qqqq", "accepted: lenet, plain, resnet"),
        ("missing.py:net", "no such file: missing.py"),
        ("no_such_module:net", "cannot import 'no_such_module'"),
        ("{own}:sizd", "did you mean sized?"),
        ("{own}:unwilling", "the callable failed: TypeError: unwilling() missing 1 required positional"),
        ("{own}:number", "must return a torch.nn.Module, not int"),
    ],
)
def test_unknown_names(own: Path, name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        _create(name.format(own=own))
    message = str(caught.value)
    assert words in message
    assert message.startswith("--net=")
    assert "\n" not in message


def test_a_file_that_fails_to_import(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("raise RuntimeError('first line\\nsecond line')\n")
    with pytest.raises(UserError, match=r"RuntimeError: first line second line$"):
        _create(f"{path}:net")


@pytest.mark.parametrize("size", [0, 8, 15, 19, 21, 22, -4])
@pytest.mark.parametrize("name", ["resnet", "plain"])
def test_sizes_of_cifar_networks(name: str, size: int) -> None:
    if size == 8:
        assert len(_create(name, resnet_size=size).layer1) == 1
        return
    with pytest.raises(UserError, match=f"^--resnet_size={size}: accepted: 6n"):
        _create(name, resnet_size=size)


@pytest.mark.parametrize(
    ("name", "side", "options", "words"),
    [
        ("resnet", 8, {"resnet_version": 3}, "--resnet_version=3: accepted: 1, 2"),
        ("resnet", 8, {"resnet_shortcut": "none"}, "--resnet_shortcut=none: accepted: projection, pad"),
        ("resnet_imagenet", 64, {"resnet_size": 20}, "--resnet_size=20: accepted: 18, 34, 50"),
        ("mobilenet_v1", 64, {"mobilenet_depth_mult": 0.0}, "--mobilenet_depth_mult=0.0: accepted: a number"),
        ("mobilenet_v2", 64, {"mobilenet_depth_mult": float("nan")}, "--mobilenet_depth_mult=nan"),
        ("vgg16_bn", 28, {}, "--net=vgg16_bn: needs images of 32x32 pixels or more, not 28x28"),
        ("resnet_imagenet", 8, {}, "--net=resnet_imagenet: needs images of 32x32"),
        ("mobilenet_v2", 7, {}, "--net=mobilenet_v2: needs images of 8x8"),
        ("lenet", 3, {}, "--net=lenet: needs images of 4x4"),
    ],
)
def test_values_not_offered(name: str, side: int, options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        create_net(name, num_classes=10, input_shape=(3, side, side), **options)
    assert str(caught.value).startswith(words)


def test_the_registry_is_what_is_documented() -> None:
    names = "lenet plain resnet resnet_imagenet vgg16_bn mobilenet_v1 mobilenet_v2"
    assert list(NETS) == names.split()
