"""docs/operators.md lists every operator and every refusal there is; its examples give the messages it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.ignoring import LEFT_ALONE
from pocketprune.structure.propagation import REFUSALS, RULES
from pocketprune.structure.propagation.elementwise import elementwise
from pocketprune.structure.verification import check_groups
from pocketprune.thinning.holding import NOT_PROVED
from tests.structure.toy import Toy, conv, head, linear, toy

ROOT = Path(__file__).parents[2]
SECTIONS = dict(
    re.findall(
        r"^## (.+?)\n(.*?)(?=^## |\Z)", (ROOT / "docs/operators.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
)
NETWORKS = (
    "admission.py",
    "tracing.py",
    "purifying.py",
    "removal.py",
    "proving.py",
    "moving.py",
    "samplers.py",
    *("ignoring.py", "graphs.py", "structure/batches.py", "common/inputs.py"),
)
"""Modules whose errors are about networks."""


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def template(text: str) -> str:
    """A message with every placeholder, the page's <word> and the code's {expression}, alike."""
    return re.sub(r"<\w+>|\{[^}]*\}", "<>", text.strip("`| "))


def messages(section: str) -> set[str]:
    return {template(row[0]) for row in rows(section)}


def literals(node: ast.expr) -> list[str]:
    """The messages an expression may be: strings, formatted ones with placeholders, either side of a condition."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "<>" for part in node.values)]
    return []


def raised(name: str) -> set[str]:
    """The messages of the errors that a module of the engine raises, the argument at fault in front."""
    (path,) = (ROOT / "pocketprune").rglob(name)
    tree = ast.parse(path.read_text("utf-8"))
    told = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("UserError", "UnprovedError"):
            at_fault = [f"{k.value.value}: " for k in node.keywords if k.arg == "argument"]
            told |= {"".join(at_fault) + text for text in literals(node.args[0])}
        if isinstance(node, ast.FunctionDef) and node.name.startswith("why_"):
            told |= {text for n in ast.walk(node) if isinstance(n, ast.Return) for text in literals(n.value)}
    return told


def test_the_table_holds_the_registry() -> None:
    listed = [name for row in rows("Supported operators") for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == set(RULES)


def test_every_reason_of_a_group_is_told() -> None:
    pins = {"network output", "it has one channel", "permuting its channels changed the network's output"}
    pins |= {LEFT_ALONE, NOT_PROVED}
    assert messages("Why channels stay") == pins | {template(text) for text in REFUSALS.values()}
    code = "".join(path.read_text("utf-8") for path in (ROOT / "pocketprune").rglob("*.py"))
    assert all(f'"{pin}"' in code for pin in pins)
    assert len(re.findall(r"identities\.pin\(|\.pinned_id\(", code)) == 3  # of State.refuse, join and the output


def test_every_reason_of_a_layer_is_told() -> None:
    tree = ast.parse((ROOT / "pocketprune/structure/layers.py").read_text("utf-8"))
    given = {text for n in ast.walk(tree) if isinstance(n, (ast.Constant, ast.JoinedStr)) for text in literals(n)}
    reasons = {text for text in given if text.startswith("it") and " " in text}
    reasons |= {"<> layers read its input", LEFT_ALONE}
    assert messages("Why a layer of the ratio list keeps its input") == reasons
    assert "<> layers read its input" in given


def test_every_error_about_a_network_is_told() -> None:
    assert messages("Networks that are refused") == {text for name in NETWORKS for text in raised(name)}


def _generated_scale(n: nn.Module, x: Tensor) -> Tensor:
    return n.out((n.a(x).unflatten(-1, (4, 2)) * n.scale(n.code)).flatten(-2))


def _generated_weight(n: nn.Module, x: Tensor) -> Tensor:
    weight = n.scale(n.code).permute(0, 3, 1, 2)
    return n.head(F.conv2d(n.a(x), weight, padding=1, groups=4))


FEATURES = ((2, 6),)
IN_OUT = {"a": linear(6, 8), "out": linear(8, 5)}
REFUSED: dict[str, tuple[Toy, str, str]] = {
    "network output": (toy(lambda n, x: n.out(n.a(x)), FEATURES, **IN_OUT), "out", "network output"),
    "one channel": (
        toy(lambda n, x: (n.out(y := n.a(x)), n.one(y[:, :1])), FEATURES, **IN_OUT, one=linear(1, 5)),
        "a#1",
        "it has one channel",
    ),
    "unknown": (
        toy(lambda n, x: n.out(torch.fft.rfft(n.a(x)).abs()), FEATURES, a=linear(6, 8), out=linear(5, 5)),
        "a",
        f"fft_rfft (fft_rfft): {REFUSALS['unknown']}",
    ),
    "lstm": (
        toy(
            lambda n, x: n.out(n.lstm(n.a(x))[0][:, -1]),
            ((2, 5, 6),),
            a=linear(6, 8),
            out=linear(7, 5),
            lstm=lambda: nn.LSTM(8, 7, batch_first=True),
        ),
        "a",
        f"lstm in lstm: {REFUSALS['unknown']}",
    ),
    "lstm cell": (
        toy(
            lambda n, x: n.out(n.cell(n.a(x))[0]),
            FEATURES,
            a=linear(6, 8),
            out=linear(7, 5),
            cell=lambda: nn.LSTMCell(8, 7),
        ),
        "a",
        f"lstm_cell in cell: {REFUSALS['unknown']}",
    ),
    "mixed": (
        toy(lambda n, x: n.out(n.a(x).softmax(1)), FEATURES, **IN_OUT),
        "a",
        f"softmax (softmax): {REFUSALS['mixed']}",
    ),
    "statistics": (
        toy(lambda n, x: n.out(n.norm(n.a(x))), FEATURES, **IN_OUT, norm=lambda: nn.LayerNorm(8)),
        "a",
        f"layer_norm in norm: {REFUSALS['statistics']}",
    ),
    "combined": (
        toy(lambda n, x: n.out(n.a(x) + x), FEATURES, a=linear(6, 6), out=linear(6, 5)),
        "a",
        "add (add): combined with a network input, which cannot be thinned alike",
    ),
    "joined": (
        toy(lambda n, x: n.out(torch.cat([n.a(x), x], 1).mean(1)), ((2, 3, 6),), a=linear(6, 6), out=linear(6, 5)),
        "a",
        "cat (cat): joined along another axis with a network input, which cannot be thinned alike",
    ),
    "read": (
        toy(lambda n, x: n.out(n.a(x) @ x.mT), ((2, 4, 6),), a=linear(6, 6), out=linear(4, 5)),
        "a",
        "matmul (matmul): read together with a network input, which cannot be thinned alike",
    ),
    "axis": (
        toy(lambda n, x: n.head(n.conv(n.a(x))), ((2, 3, 6, 6),), a=linear(6, 8), conv=conv(3, 4), head=head(4)),
        "a",
        "conv2d in conv: channels are read along another axis",
    ),
    "index": (
        toy(lambda n, x: n.out(n.a(x).gather(1, x.argsort(1))), FEATURES, a=linear(6, 8), out=linear(6, 5)),
        "a",
        "gather (gather): its indices depend on the data or on channels",
    ),
    "overlap": (
        toy(
            lambda n, x: n.out((n.a(x)[:, :, None] * n.b(x)[:, None]).flatten(1)),
            FEATURES,
            a=linear(6, 8),
            b=linear(6, 4),
            out=linear(32, 5),
        ),
        "b",
        "flatten (flatten): two kinds of channels share one axis",
    ),
    "sequence": (
        toy(lambda n, x: n.out(torch.einsum("ni,ni,ni->ni", n.a(x), n.a(x), n.a(x))), FEATURES, **IN_OUT),
        "a",
        "einsum (einsum): einsum 'ni,ni,ni->ni' of channels is not followed",
    ),
    "heads": (
        toy(_generated_scale, FEATURES, **IN_OUT, scale=linear(3, 2), code=lambda: torch.randn(3)),
        "scale",
        f"mul (mul): {REFUSALS['heads']}",
    ),
    "groups": (
        toy(_generated_weight, a=conv(3, 8), head=head(8), scale=linear(4, 2), code=lambda: torch.randn(8, 3, 3, 4)),
        "scale",
        f"conv2d (conv2d_1): {REFUSALS['groups']}",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_reads_as_the_page_says(case: str) -> None:
    build, name, message = REFUSED[case]
    torch.manual_seed(0)
    structure = analyse(build.build().double(), build.example())
    group = structure.group(name)
    assert (group.prunable, group.reason) == (False, message)
    told = messages("Why channels stay")
    assert any(re.search(f"{re.escape(text).replace('<>', '.+')}$", message) for text in told)


def test_every_reason_is_provoked() -> None:
    seen = " ".join(message for _, _, message in REFUSED.values())
    missing = [text for text in REFUSALS.values() if not re.search(re.sub(r"\\\{.*?\\\}", ".+", re.escape(text)), seen)]
    assert not missing


def test_a_wrong_analysis_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that takes a running sum for an elementwise operator: the permutation check notices."""
    monkeypatch.setitem(RULES, "cumsum", elementwise)
    net = toy(lambda n, x: n.out(n.a(x).cumsum(1)), FEATURES, **IN_OUT)
    torch.manual_seed(0)
    structure = analyse(net.build().double(), net.example())
    assert structure.group("a").prunable
    check_groups(structure, structure.traced.example)
    assert structure.group("a").reason == "permuting its channels changed the network's output"
