"""Distiller's schedules: those of docs/from_distiller.md carried out, and what is told of faulty ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pocketprune
from nets.resnet import resnet
from pocketprune.common.errors import UserError
from pocketprune.compat import distiller
from pocketprune.compat.distiller.building import Plan, plan_for
from pocketprune.compat.distiller.periods import Period
from pocketprune.compat.distiller.rates import rate_factors
from pocketprune.compat.distiller.reading import parse_document
from pocketprune.structure.channel_groups import Structure, analyse
from tests.compat.pages import examples, run

SCHEDULES = examples("from_distiller.md", "yaml")
LOOP, TOOLS = examples("from_distiller.md")


def resnet20() -> nn.Module:
    torch.manual_seed(0)
    return resnet(num_classes=10, input_shape=(3, 32, 32), resnet_version=1, resnet_shortcut="pad")


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, 32, 32, generator=generator), torch.randint(10, (4,), generator=generator))]


@pytest.fixture(scope="module")
def structure() -> Structure:
    return analyse(resnet20(), torch.zeros(2, 3, 32, 32))


@pytest.mark.filterwarnings("ignore:line")
@pytest.mark.parametrize(
    ("text", "widths"),
    [
        pytest.param(
            SCHEDULES[0], {"layer1.0.conv1": 7, "layer2.0.conv1": 32, "layer2.1.conv1": 16}, marks=pytest.mark.slow
        ),
        pytest.param(
            SCHEDULES[1], {"layer1.0.conv1": 8, "layer1.1.conv1": 8, "layer1.2.conv1": 16}, marks=pytest.mark.slow
        ),
        (SCHEDULES[2], {"layer1.0.conv1": 8, "layer2.1.conv1": 20, "layer3.0.conv1": 64}),
    ],
)
def test_schedule_in_a_persons_own_loop(
    text: str, widths: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("schedule.yaml").write_text(text)
    net = resnet20()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    run(LOOP, model=net, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), batches=batches())
    assert {name: net.get_submodule(name).out_channels for name in widths} == widths
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in net.parameters()}
    assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in net.parameters())
    pocketprune.save("smaller.pt", net)
    images = batches()[0][0]
    assert torch.equal(pocketprune.load("smaller.pt", resnet20()).eval()(images), net.eval()(images))


def test_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    net = resnet20()
    before = net.layer1[0].conv1.weight.clone()
    seen = []

    def test_func(model: nn.Module) -> tuple[float, float, float]:
        seen.append(int((model.layer1[0].conv1.weight.flatten(1) == 0).all(1).sum()))
        return 0.5, 0.9, 1.0

    run(TOOLS, model=net, dummy_input=torch.zeros(2, 3, 32, 32), test_func=test_func)
    assert seen == [0, 8]
    assert torch.equal(net.layer1[0].conv1.weight, before)
    lines = Path("sensitivity.csv").read_text().splitlines()
    assert lines == [
        "parameter,sparsity,top1,top5,loss",
        "layer1.0.conv1.weight,0.0,0.5,0.9,1.0",
        "layer1.0.conv1.weight,0.5,0.5,0.9,1.0",
    ]
    out = capsys.readouterr().out
    assert "Total sparsity: 0.00  (268,336 of 268,336 weights are not zero)" in out
    assert "Total MACs: 40,551,040" in out


def plan(text: str, structure: Structure) -> Plan:
    return plan_for(parse_document(text), structure)


@pytest.mark.filterwarnings("ignore:line")
def test_another_leader_is_said(structure: Structure) -> None:
    swapped = SCHEDULES[1].replace("layer1.0.conv2", "layer1.9.conv2").replace("layer1.1.conv2", "layer1.0.conv2")
    text = swapped.replace("layer1.9", "layer1.1").replace("Channels", "Filters")
    with pytest.warns(UserWarning, match=r"weights: conv1 leads, the first in forward order, not layer1.1.conv2"):
        plan(text, structure)


def test_levels_of_agp(structure: Structure) -> None:
    """Distiller: .10 to .50 in epochs 0 to 30 with frequency 2."""
    text = SCHEDULES[2].replace("ending_epoch: 3\n    frequency: 1", "ending_epoch: 30\n    frequency: 2", 1)
    found = plan(text.replace("epochs: [3]", "epochs: [30]"), structure)
    assert found.policy is not None
    schedule = next(rule for rule in found.policy.rules if "layer1.0.conv1" in rule.groups).schedule
    levels = [round(schedule.level(epoch), 4) for epoch in (0, 2, 4, 6, 14, 28, 29)]
    assert levels == [0.1, 0.1797, 0.2481, 0.306, 0.45, 0.5, 0.5]
    assert [epoch for epoch in range(31) if schedule.changes(epoch)] == list(range(0, 29, 2))


def test_a_chain_with_gaps_is_completed_and_said(structure: Structure) -> None:
    text = SCHEDULES[0].replace("module.layer1.0.conv1.weight,", "conv1.weight,")
    with pytest.warns(UserWarning, match=r"line 8: pruners.low_pruner.weights: completed by layer1.0.conv2, layer1"):
        found = plan(text, structure)
    assert found.policy is not None
    assert "conv1" in found.policy.rules[0].groups
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(SCHEDULES[0], structure)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("layer1.0.conv1.weight", "layer1.0.cnov1.weight", r"line 9: .*weights\[0\]: .*did you mean 'layer1.0.conv1.w"),
        (
            "desired_sparsity: 0.6",
            "desired_sparsity: 1.0",
            r"line 7: pruners.low_pruner.desired_sparsity: 1.0 given; \[",
        ),
        ("desired_sparsity", "desired_sparsty", "line 7: .*desired_sparsty: no such key; did you mean 'desired_sparsi"),
        ("group_type: Filters", "group_type: Blocks", "line 6: .*group_type: 'Blocks' given; accepted: Filters"),
        ("L1RankedStructureParameterPruner", "L1RankedStructurePruner", "line 5: .*did you mean 'L1RankedStructureP"),
        ("class: L1Ranked", "class: ['", r"line \d+: no YAML"),
        ("instance_name: low_pruner", "instance_name: low", "line 34: .*'low' is not among the pruners"),
        ("epochs: [0]", "epochs: [zero]", "line 35: .*epochs: 'zero' given; a whole number"),
        ("gamma: 0.95", "gama: 0.95", "line 30: lr_schedulers.exp_finetuning_lr.gama: no such key"),
        ("FilterRemover", "FilterRemove", "line 22: .*'FilterRemove' given; FilterRemover"),
        ("module.layer1.0.conv1.weight", "module.linear.weight", "'linear.weight' cannot lose filters: .*output"),
        ("version: 1", "quantizers: {q: {class: X}}", "line 1: quantizers: a quantizer given"),
        ("epochs: [0]", "starting_epoch: 0\n    ending_epoch: 9", "line 33: .*prunes until epoch 8, and .* at 0"),
        ("gamma: 0.95", "gamma: *rate", "line 30: aliases"),
    ],
)
def test_faults_are_told_with_their_line(old: str, new: str, words: str, structure: Structure) -> None:
    with pytest.raises(UserError, match=words):
        plan(SCHEDULES[0].replace(old, new, 1), structure)


def test_dummy_input_follows_from_the_data_set_or_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(SCHEDULES[0].replace("dataset: cifar10", "dataset: mine"))
    with pytest.raises(UserError, match="dummy_input: none given"):
        distiller.file_config(resnet20(), None, path)
    with pytest.raises(UserError, match="compress: no such file"):
        distiller.file_config(resnet20(), None, tmp_path / "absent.yaml")


def test_learning_rates_follow_their_periods() -> None:
    document = parse_document(
        "lr_schedulers:\n  a: {class: MultiStepMultiGammaLR, milestones: [1, 3], gammas: [0.5, 0.1]}\n"
        "  b: {class: StepLR, step_size: 1, gamma: 0.5}\n"
    )
    periods = [Period("lr_scheduler", "a", 0, 9, 1, ()), Period("lr_scheduler", "b", 2, 4, 1, ())]
    assert rate_factors(document, periods[:1], 5) == pytest.approx((1, 0.5, 0.5, 0.05, 0.05))
    assert rate_factors(document, periods[1:], 5) == pytest.approx((1, 1, 1, 0.5, 0.25))
