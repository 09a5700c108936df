"""The channel learner as a whole: what it spares."""

from pathlib import Path
from typing import Any

import pytest
import torch

import run
from learners import measuring
from nets import create_net
from pocketprune.graph import tracing


@pytest.mark.parametrize("has_weights", [True, False])
def test_a_run_traces_its_network_once_and_the_thinned_one_once(
    has_weights: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "LATENCY_SECONDS", 0.01)
    ratios = tmp_path / "my.list"
    ratios.write_text(",".join(["0.5"] * 10))
    flags = ["--learner=channel", "--cp_prune_option=list", f"--cp_prune_list_file={ratios}", "--cp_nb_batches=1"]
    flags += ["--resnet_size=8", "--nb_epochs=1", "--latency_batch=1", "--device=cpu", f"--workdir={tmp_path / 'out'}"]
    if has_weights:
        net = create_net("resnet", num_classes=10, input_shape=(1, 8, 8), resnet_size=8)
        torch.save(net.state_dict(), tmp_path / "weights.pt")
        flags.append(f"--init_checkpoint={tmp_path / 'weights.pt'}")
    traced: list[int] = []
    real = tracing.exported

    def counted(net: torch.nn.Module, *arguments: Any, **options: Any) -> Any:
        traced.append(sum(p.numel() for p in net.parameters()))
        return real(net, *arguments, **options)

    monkeypatch.setattr(tracing, "exported", counted)
    assert run.main(flags) == 0
    assert len(traced) == 2
    assert traced[0] > traced[1]
