"""--cp_prune_option auto from the command line, on a small network and the embedded digits."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import run
from learners.channel import ratio_search
from learners.channel.search_watch import SearchWatch
from nets import create_net
from pocketprune.search import Budget, Score

FLAGS = (
    "--learner=channel", "--cp_prune_option=auto", "--resnet_size=8", "--resnet_version=1", "--resnet_shortcut=pad",
    "--cp_shared_input=keep", "--cp_nb_batches=2", "--cp_nb_points_per_layer=4", "--nb_epochs_rat=0",
    "--latency_batch=4", "--device=cpu", "--cp_nb_rlouts=12", "--cp_nb_rlouts_min=6", "--ddpg_nb_updates=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-8 with random weights: a search ranks its prunings all the same."""
    torch.manual_seed(0)
    net = create_net(
        "resnet", num_classes=10, input_shape=(1, 8, 8), resnet_size=8, resnet_version=1, resnet_shortcut="pad"
    )
    path = tmp_path_factory.mktemp("weights") / "dense.pt"
    torch.save(net.state_dict(), path)
    return path


def _run(weights: Path, workdir: Path, *flags: str) -> int:
    return run.main([*FLAGS, f"--init_checkpoint={weights}", f"--workdir={workdir}", *flags])


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert _run(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def _rollouts(workdir: Path) -> list[dict[str, str]]:
    with open(workdir / "search.csv", newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def searched(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "searched"
    assert _run(weights, workdir, "--cp_search=dp") == 0
    return workdir


def test_the_pruned_network_meets_the_budget(searched: Path) -> None:
    report = json.loads((searched / "report.json").read_text())
    assert report["pruned"]["macs"] / report["dense"]["macs"] == pytest.approx(0.5, abs=0.005)
    assert report["seconds"]["search"] > 0
    reached = report["pruned"]["macs"] / report["dense"]["macs"]
    assert report["budget"] == {"kind": "macs", "asked": 0.5, "reached": reached, "met": True}
    finalists = json.loads((searched / "search.json").read_text())["finalists"]
    assert sum(finalist["chosen"] for finalist in finalists) == 1
    page = (searched / "report.html").read_text(encoding="utf-8")
    assert page.count("number ") == sum(1 for _ in (searched / "search.csv").open()) - 1


def test_the_list_repeats_the_result_without_a_search(searched: Path, weights: Path, tmp_path: Path) -> None:
    again = ("--cp_prune_option=list", f"--cp_prune_list_file={searched / 'ratio.list'}")
    assert _run(weights, tmp_path, *again) == 0
    reports = [json.loads((folder / "report.json").read_text()) for folder in (searched, tmp_path)]
    first, second = ([(layer["name"], layer["kept"]) for layer in report["layers"]] for report in reports)
    assert first == second
    assert reports[0]["pruned"]["loss"] == pytest.approx(reports[1]["pruned"]["loss"], rel=1e-5)
    assert not (tmp_path / "search.csv").exists()


def test_a_search_can_be_watched(searched: Path) -> None:
    assert {"search.csv", "sensitivity.csv", "sensitivity.png", "ratio.list"} <= {p.name for p in searched.iterdir()}
    tags = EventAccumulator(str(searched / "tensorboard")).Reload().Tags()
    curves = ("reward", "best_reward", "loss", "cost", "preserve_ratio", "accuracy_against_cost")
    assert {f"search/{name}" for name in curves} <= set(tags["scalars"])
    assert {"search/ratios_per_layer", "search/pareto", "search/sensitivity"} <= set(tags["images"])


def test_the_sensitivities_serve_another_budget(
    searched: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sensitivity.csv").write_bytes((searched / "sensitivity.csv").read_bytes())
    assert _run(weights, tmp_path, "--cp_search=sensitivity", "--cp_preserve_ratio=0.4") == 0
    assert "Sensitivities: from" in capsys.readouterr().out
    assert len(_rollouts(tmp_path)) == 2


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("method", ["dp", pytest.param("ddpg", marks=pytest.mark.slow)])
def test_a_killed_search_goes_on_to_the_same_result(
    method: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (f"--cp_search={method}",)
    assert _run(weights, tmp_path / "whole", *flags) == 0
    listen = SearchWatch.__call__

    def killed(watch: SearchWatch, progress: object) -> None:
        listen(watch, progress)
        if progress.done == 9:
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(SearchWatch, "__call__", killed)
        with pytest.raises(KilledError):
            _run(weights, tmp_path / "killed", *flags)
    refusal = _refusal(capsys, weights, tmp_path / "killed", *flags, "--cp_preserve_ratio=0.4")
    assert "--cp_preserve_ratio: 0.5 saved, 0.4 now" in refusal
    assert _run(weights, tmp_path / "killed", *flags) == 0
    assert _rollouts(tmp_path / "killed") == _rollouts(tmp_path / "whole")
    lists = [(tmp_path / name / "ratio.list").read_text() for name in ("whole", "killed")]
    assert lists[0] == lists[1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--cp_preserve_ratio=0.01",), "--cp_preserve_ratio=0.01: 0.01 of the full network's MACs is out of reach"),
        (("--cp_search=ddpg", "--cp_nb_rlouts=5"), "--cp_nb_rlouts=5: 5 leaves none after the warm-up of 6"),
        (("--nb_smpls_val=20",), "--cp_nb_smpls_search=2000: 20 images given"),
        (("--cp_nb_smpls_search=10",), "--cp_nb_smpls_search=10: 10 images given"),
        (("--cp_search=dpp",), "--cp_search=dpp: expected one of dp, curvature, ddpg"),
        (("--cp_budget=flops",), "--cp_budget=flops: expected one of macs, params, latency"),
        (("--cp_preserve_ratio=0",), "--cp_preserve_ratio=0.0: expected a number in (0, 1]"),
    ],
)
def test_bad_input_is_told_in_one_line(
    flags: tuple[str, ...], words: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in _refusal(capsys, weights, tmp_path, *flags)
    assert not (tmp_path / "ratio.list").exists()


def test_a_finalist_that_is_measured_to_be_too_slow_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, said = {(4,): 1.04, (2,): 0.7}, []
    search = object.__new__(ratio_search.RatioSearch)
    search.settings, search.metric = None, "accuracy"
    search.context = SimpleNamespace(say=said.append, images=torch.zeros, task=None)
    search.config, search.workdir = SimpleNamespace(run=SimpleNamespace(latency_batch=2)), tmp_path
    env = SimpleNamespace(
        ratios=lambda counts: counts,
        judge=lambda net: Score(net.counts[0] / 10, 0.0, 0.0),
        structure=SimpleNamespace(traced=SimpleNamespace(net=nn.Identity())),
    )

    def pruned(counts: tuple[int, ...]) -> nn.Module:
        net = nn.Identity()
        net.counts = counts
        return net

    def decided(_problem: object, _found: object, score: Callable[[tuple[int, ...]], Score], *_) -> tuple:
        return [(4,), (2,)], [(counts, score(counts)) for counts in shares]

    monkeypatch.setattr(ratio_search, "finalists", lambda *_: list(shares))
    monkeypatch.setattr(ratio_search, "decide", decided)
    monkeypatch.setattr(ratio_search, "latency_share", lambda net, *_: shares[net.counts])
    problem = SimpleNamespace(budget=Budget("latency", 0.8), cost=sum, full_cost=8.0)
    assert search._choose(env, problem, SimpleNamespace(method="dp"), pruned) == (2,)
    assert said[0] == "Finalists, timed: 104.0%, 70.0% of the dense network's latency"
    assert [f["chosen"] for f in json.loads((tmp_path / "search.json").read_text())["finalists"]] == [False, True]
