import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F

from pocketprune.common.errors import UserError
from pocketprune.training.metrics import NullRecorder, TensorBoardRecorder, create_recorder, evaluate
from tests.training.tiny import TinySplit, conv_net


@pytest.mark.parametrize("batch_size", [7, 96, 1000])
def test_evaluate_equals_the_whole_split_at_once(batch_size):
    net, split = conv_net(dropout=0.5), TinySplit()
    found = evaluate(net, split, batch_size, progress=False)
    with torch.no_grad():
        logits = net.eval()(split.images)
    assert found.samples == len(split)
    assert found.accuracy == pytest.approx((logits.argmax(1) == split.labels).float().mean().item())
    assert found.loss == pytest.approx(F.cross_entropy(logits, split.labels).item(), rel=1e-5)
    assert found.top5 is None
    assert "accuracy" in str(found)


def test_top5_where_there_are_many_classes():
    net, split = conv_net(classes=24), TinySplit(classes=24)
    with torch.no_grad():
        top = net.eval()(split.images).topk(5).indices
    expected = (top == split.labels[:, None]).any(1).float().mean().item()
    assert evaluate(net, split, 10, progress=False).top5 == pytest.approx(expected)


def test_every_module_returns_to_its_own_mode_even_after_an_error():
    net = conv_net().train()
    net[1].eval()
    before = [module.training for module in net.modules()]
    evaluate(net, TinySplit(), 32, progress=False)
    assert [module.training for module in net.modules()] == before
    with pytest.raises(UserError):
        evaluate(net, TinySplit(), 0)
    with pytest.raises(RuntimeError):
        evaluate(nn.Sequential(net, nn.Linear(1, 1)), TinySplit(), 32, progress=False)
    assert [module.training for module in net.modules()] == before


def test_tensorboard_gets_what_is_recorded(tmp_path):
    recorder = create_recorder(tmp_path)
    recorder.record("train/loss", 0.5, 10)
    recorder.record("train/loss", torch.tensor(0.25), 20)
    recorder.text("report", "a | b", 1)
    recorder.image("channels", torch.zeros(4, 4, 3), 1)
    recorder.histogram("weights", torch.arange(10.0), 1)
    recorder.flush()
    recorder.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(10, 0.5), (20, 0.25)]
    tags = events.Tags()
    assert (tags["images"], tags["histograms"], tags["tensors"]) == (
        ["channels"],
        ["weights"],
        ["report/text_summary"],
    )


def test_recorder_errors_and_absence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        TensorBoardRecorder(tmp_path / "file" / "tensorboard")
    assert isinstance(create_recorder(None), NullRecorder)
