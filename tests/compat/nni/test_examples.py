"""Every example of docs/from_nni.md runs to its end, as it is typed there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import pocketprune
from tests.compat.pages import examples, run, title
from tests.compat.small import accuracy, digits, small_net, train

EXAMPLES = examples("from_nni.md")


@pytest.mark.filterwarnings("ignore:config_list")  # a completed list is said
@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{n}-{title(text)}" for n, text in enumerate(EXAMPLES)])
def test_example(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, images = small_net(), digits()[0]
    dense = pocketprune.count_params(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    names = run(
        example,
        torch=torch,
        model=model,
        optimizer=optimizer,
        trainer=train,
        criterion=nn.CrossEntropyLoss(),
        evaluator=accuracy,
        val_loader=[(images[:32], None)],
        short_term_fine_tuner=lambda net: train(net, torch.optim.SGD(net.parameters(), 0.01), nn.CrossEntropyLoss()),
        dummy_input=images[:2],
    )
    if "pruner" in names and "ModelSpeedup" not in names:
        masks = names["pruner"].masks
        left = sum(float(own["weight"].sum()) for own in masks.values())
        assert 0 < left < sum(own["weight"].numel() for own in masks.values())
        own = dict(model.named_parameters())
        assert all(float(own[f"{name}.weight"].detach()[masks[name]["weight"] == 0].abs().sum()) == 0 for name in masks)
    if "ModelSpeedup" in names:
        assert pocketprune.count_params(model) < 0.75 * dense
        assert model.eval()(images[:2]).shape == (2, 10)
    if "smaller.pt" in example:
        again = pocketprune.load("smaller.pt", small_net()).eval()
        assert torch.equal(again(images[:4]), model(images[:4]))
    if "sensitivity.csv" in example:
        assert Path("sensitivity.csv").read_text().startswith("layername,0.0,0.3,0.6\nconv,")
        assert Path("dependency.csv").read_text() == "Dependency Set,Layers\nSet 1,conv,conv2\n"
