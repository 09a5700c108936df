"""The examples run, end with a dense and a pruned row, and keep to their budget."""

import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
import torch

from examples.canvas import SIZE, draw
from examples.detection import Detector, average_precision, decoded, overlaps, wanted

ROOT = Path(__file__).parents[2]
LIBRARIES = [name for name in ("timm", "torchvision") if util.find_spec(name) is not None]
QUICK = ["--epochs", "1", "--images", "100", "--rollouts", "2"]


def _run(name: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"examples.{name}", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segmentation", "detection", "own_training_loop", "two_inputs"])
def test_an_example_ends_with_its_table(name: str) -> None:
    lines = _run(name, *QUICK, "--share", "0.7").strip().splitlines()
    assert "MACs" in lines[0]
    assert lines[1].startswith("dense")
    assert "100.0%" in lines[1]
    shares = [float(re.search(r"([\d.]+)%", line).group(1)) for line in lines[2:]]
    assert shares
    assert all(60 < share < 80 for share in shares)


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARIES, reason="no model library is installed")
def test_the_networks_of_installed_libraries_are_pruned() -> None:
    assert "pruned" in _run("model_library", *QUICK)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("segmentation", 0.6), ("detection", 0.6)])
def test_what_an_example_prunes_is_worth_it_and_stays_so(name: str, least: float) -> None:
    text = _run(name)
    print(text)  # for a person with -rP
    dense, _, trained = (float(line.split()[-6]) for line in text.strip().splitlines()[1:])
    assert dense > least
    assert trained > 0.9 * dense


def test_what_is_drawn_is_where_its_boxes_say() -> None:
    data = draw(20, seed=0)
    assert data.images.shape == (20, 1, SIZE, SIZE)
    for mask, boxes, labels in zip(data.masks, data.boxes, data.labels, strict=True):
        inside = torch.zeros_like(mask, dtype=torch.bool)
        for (left, top, right, bottom), label in zip(boxes.long().tolist(), labels.tolist(), strict=True):
            part = mask[top:bottom, left:right]
            assert not inside[top:bottom, left:right].any()
            inside[top:bottom, left:right] = True
            assert set(part.unique().tolist()) <= {0, label + 1}
        assert not mask[~inside].any()


def test_targets_decode_to_the_boxes_they_were_made_of() -> None:
    data = draw(20, seed=1)
    outputs: dict[str, list[torch.Tensor]] = {"scores": [], "sides": []}
    for level, side in enumerate((SIZE // 4, SIZE // 8)):
        pairs = [wanted(boxes, labels, level) for boxes, labels in zip(data.boxes, data.labels, strict=True)]
        hot = [torch.where(d[:, None] == torch.arange(10), 9.0, -9.0) for d, _ in pairs]
        outputs["scores"].append(torch.stack(hot).transpose(1, 2).reshape(20, 10, side, side))
        outputs["sides"].append(torch.stack([s for _, s in pairs]).transpose(1, 2).reshape(20, 4, side, side))
    found = [decoded(outputs, number) for number in range(20)]
    for (boxes, _, digits), truth, labels in zip(found, data.boxes, data.labels, strict=True):
        assert sorted(map(tuple, boxes.tolist())) == sorted(map(tuple, truth.tolist()))
        assert sorted(digits.tolist()) == sorted(labels.tolist())
    present = set(torch.cat(data.labels).tolist())
    assert all(average_precision(found, data, digit) == pytest.approx(1) for digit in present)


def test_overlaps_are_intersections_over_unions() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 6.0, 6.0]])
    assert overlaps(boxes[:1], boxes)[0].tolist() == pytest.approx([1, 1 / 7, 0])


def test_the_detector_has_two_heads_on_two_levels() -> None:
    outputs = Detector(4, 8).eval()(torch.zeros(2, 1, SIZE, SIZE))
    assert [tuple(x.shape) for x in outputs["scores"]] == [(2, 10, 8, 8), (2, 10, 4, 4)]
    assert [tuple(x.shape) for x in outputs["sides"]] == [(2, 4, 8, 8), (2, 4, 4, 4)]
