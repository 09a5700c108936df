"""A run knows its images, its network and its files: it goes on with the same ones only, wherever they lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import run
from config import Config
from datasets import create_dataset
from learners import measuring
from learners.identity import NET, identity_of, other_parts
from nets import create_net

DATA = """
from pathlib import Path

import numpy as np
from datasets import in_memory

def build(data_dir):
    numbers = np.random.default_rng(int(Path(data_dir, "seed").read_text()))
    images = numbers.integers(0, 256, (90, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(90) % 3
    train, test = (images[:60], labels[:60]), (images[60:], labels[60:])
    return in_memory("own", train, test, num_classes=3, mean=(0.5,), std=(0.3,))
"""
NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.b(self.a(x).relu()).ACTIVATION().mean((2, 3)))

def build():
    return Net()
"""
SMALL = ["--nb_epochs=1", "--device=cpu", "--threads=1", "--latency_batch=1", "--cp_nb_batches=1", "--batch_size=16"]
CHANNEL = ("--learner=channel", "--cp_uniform_preserve_ratio=0.5", "--nb_epochs_rat=0")
FULL = ("--learner=full-prec",)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of two data sets, A and B, and of two networks with the same tensors."""
    (tmp_path / "data.py").write_text(DATA)
    for number, name in enumerate("AB"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seed").write_text(str(number))
    for name in ("relu", "tanh"):
        (tmp_path / f"{name}.py").write_text(NETS.replace("ACTIVATION", name))
    return tmp_path


def _run(own: Path, *flags: str, data: str = "A", net: str = "relu", out: str = "out") -> int:
    where = (f"--dataset={own / 'data.py'}:build", f"--data_dir={own / data}", f"--net={own / net}.py:build")
    return run.main([*SMALL, *where, f"--workdir={own / out}", *flags])


def _refusal(capsys: pytest.CaptureFixture[str], own: Path, *flags: str, **which: str) -> str:
    capsys.readouterr()
    assert _run(own, *flags, **which) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.strip() and "%|" not in line)
    return line


def _files(own: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (own / "out" / "checkpoints").iterdir()}


@pytest.mark.parametrize("learner", [CHANNEL, FULL], ids=["channel", "full-prec"])
def test_a_run_goes_on_with_its_own_images_only(
    own: Path, capsys: pytest.CaptureFixture[str], learner: tuple[str, ...]
) -> None:
    assert _run(own, *learner) == 0
    before = _files(own)
    line = _refusal(capsys, own, *learner, data="B")
    assert line.startswith("error: --dataset=")
    assert "not the images of " in line
    assert "(other: training, validation, test)" in line
    assert "--overwrite starts over" in line
    assert _files(own) == before
    shutil.move(own / "A", own / "moved")
    assert _run(own, *learner, data="moved") == 0
    assert _run(own, *learner, "--exec_mode=eval", data="B") == 0  # it may be measured on any images
    assert _run(own, *learner, "--overwrite", data="B") == 0
    assert _run(own, *learner, data="B") == 0
    assert "not the images" in _refusal(capsys, own, *learner, data="moved")


@pytest.mark.parametrize("learner", [CHANNEL, FULL], ids=["channel", "full-prec"])
def test_a_run_goes_on_with_its_own_network_only(
    own: Path, capsys: pytest.CaptureFixture[str], learner: tuple[str, ...]
) -> None:
    assert _run(own, *learner) == 0
    shutil.copy(own / "tanh.py", own / "relu.py")  # the same flags, other code
    for mode in ("train", "eval"):
        line = _refusal(capsys, own, *learner, f"--exec_mode={mode}")
        assert line.startswith(f"error: --net={own / 'relu.py'}:build: not the network of ")
        assert "(other outputs)" in line
    assert _run(own, *learner, "--overwrite") == 0
    assert _run(own, *learner, "--exec_mode=eval") == 0


@pytest.mark.parametrize(("first", "then"), [(FULL, CHANNEL), (CHANNEL, FULL)], ids=["used", "trained again"])
@pytest.mark.parametrize("other", [{"net": "tanh"}, {"data": "B"}], ids=["net", "data"])
def test_the_dense_network_serves_runs_of_its_network_and_images(
    own: Path,
    capsys: pytest.CaptureFixture[str],
    first: tuple[str, ...],
    then: tuple[str, ...],
    other: dict[str, str],
) -> None:
    assert _run(own, *first) == 0
    dense = own / "out" / "checkpoints" / "dense.pt"
    before = dense.read_bytes()
    assert f"of {dense} (other" in _refusal(capsys, own, *then, **other)
    assert dense.read_bytes() == before
    assert _run(own, *then, "--overwrite", **other) == 0
    assert dense.read_bytes() != before
    assert _run(own, *then, **other) == 0


def test_an_unfinished_dense_network_is_finished_by_its_like(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(own, *CHANNEL) == 0
    (own / "out" / "checkpoints" / "dense.pt").unlink()  # as if it had been killed before the end
    before = _files(own)
    assert "not the network of" in _refusal(capsys, own, *FULL, net="tanh")
    torch.save(create_net(f"{own / 'relu.py'}:build", num_classes=3, input_shape=(1, 8, 8)).state_dict(), own / "w.pt")
    assert "--init_checkpoint" in _refusal(capsys, own, *FULL, f"--init_checkpoint={own / 'w.pt'}")
    assert _files(own) == before
    assert _run(own, *FULL) == 0


def test_a_checkpoint_that_was_written_over_is_another_start(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, flags = f"{own / 'relu.py'}:build", (*FULL, f"--init_checkpoint={own / 'w.pt'}")
    for status in (0, 2):
        torch.manual_seed(status)
        torch.save(create_net(build, num_classes=3, input_shape=(1, 8, 8)).state_dict(), own / "w.pt")
        assert _run(own, *flags) == status
    assert f"--init_checkpoint={own / 'w.pt'}: not the file of the run in" in capsys.readouterr().err


def test_runs_of_earlier_versions_go_on(own: Path) -> None:
    assert _run(own, *CHANNEL) == 0
    checkpoints = own / "out" / "checkpoints"
    (checkpoints / "dense.json").unlink()
    flags = json.loads((checkpoints / "channel.json").read_text())
    del flags["identity"]
    (checkpoints / "channel.json").write_text(json.dumps(flags))
    assert _run(own, *CHANNEL) == 0
    assert _run(own, *FULL) == 0


def _identity(net: str = "resnet", dataset: str = "digits", seed: int = 0, **options: object) -> dict:
    data = create_dataset(dataset, seed=seed, data_dir=options.pop("data_dir", None), image_size=8, nb_workers=0)
    torch.manual_seed(seed)
    built = create_net(net, num_classes=data.num_classes, input_shape=data.input_shape, **options)
    return json.loads(json.dumps(identity_of(Config(), data, built)))


@pytest.mark.parametrize(
    ("first", "second", "parts"),
    [
        ({}, {}, set()),
        ({}, {"seed": 1}, {"training images", "validation images"}),
        ({"resnet_shortcut": "pad"}, {"resnet_shortcut": "projection"}, set(NET)),
        ({"resnet_version": 1}, {"resnet_version": 2}, set(NET)),
        ({"resnet_size": 8}, {"resnet_size": 14}, set(NET)),
        ({"net": "mobilenet_v1"}, {"net": "mobilenet_v1", "seed": 0}, set()),
    ],
)
def test_identities_of_networks(first: dict, second: dict, parts: set[str]) -> None:
    assert set(other_parts(_identity(**first), _identity(**second))) == parts


def _folder(root: Path, change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels, classes: int = 2) -> Path:
    numbers = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for label in range(classes):
            (root / part / f"class{label}").mkdir(parents=True)
            for number in range(count):
                pixels = numbers.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(change(pixels)).save(root / part / f"class{label}" / f"{number}.png")
    return root


def test_identities_of_folders(tmp_path: Path) -> None:
    def of(root: Path) -> dict:
        return _identity("lenet", "image_folder", data_dir=root)

    mine = of(_folder(tmp_path / "a"))
    assert not other_parts(mine, of(_folder(tmp_path / "b")))
    brighter = of(_folder(tmp_path / "c", lambda pixels: pixels // 2 + 100))
    assert set(other_parts(mine, brighter)) == {"training images", "validation images", "test images"}
    (tmp_path / "b" / "val" / "class0" / "0.png").rename(tmp_path / "b" / "val" / "class1" / "9.png")
    assert other_parts(mine, of(tmp_path / "b")) == ["test images"]


def test_to_look_leaves_the_random_numbers_alone() -> None:
    data = create_dataset("digits")
    net = create_net("resnet", num_classes=10, input_shape=(1, 8, 8), resnet_size=8)
    before, numbers = {name: t.clone() for name, t in net.state_dict().items()}, torch.get_rng_state()
    identity_of(Config(), data, net)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
