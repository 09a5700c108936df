"""Training with quantisers: resumed to the bit, masks below it, the network itself again at the end."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import pocketprune
from pocketprune import QuantizationOptions, UserError
from pocketprune.compression.callback import callback
from pocketprune.quantization.conversion import convert
from pocketprune.quantization.quantizing import calibrated
from pocketprune.quantization.training import QuantizationAware
from pocketprune.training.callbacks import Callback, TrainContext
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.loop import train
from pocketprune.training.state import TrainSettings
from tests.quantization.small import images, small
from tests.training.tiny import TinySplit, same_tensors

SETTINGS = TrainSettings(epochs=2, batch_size=16, lrn_rate=0.01, momentum=0.9, save_step=3, ema_decay=0.5)


class Stop(Callback):
    """Ends a training as a crash would."""

    def after_step(self, context: TrainContext) -> None:
        if context.step == 5:
            raise RuntimeError("crash")


def _trained(folder: Path, *more: Callback) -> nn.Module:
    net = small()
    prepared = calibrated(net, [TinySplit().images], QuantizationOptions()).prepared
    part = QuantizationAware(prepared)
    train(net, TinySplit(), SETTINGS, callbacks=[part, *more], checkpoints=Checkpoints(folder), progress=False)
    assert "forward" not in vars(net)
    assert "quantizers" not in dict(net.named_children())
    return convert(prepared)


def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = _trained(tmp_path / "whole", Callback())
    with pytest.raises(RuntimeError, match="crash"):
        _trained(tmp_path / "parts", _named(Stop()))
    assert same_tensors(_trained(tmp_path / "parts", Callback()), whole)


def _named(callback: Callback) -> Callback:
    callback.name = "Callback"
    return callback


def test_training_moves_weights_scales_and_ranges_and_freezes_batch_norms() -> None:
    net, split = small(), TinySplit()
    prepared = calibrated(net, [split.images], QuantizationOptions(weight_bits=3)).prepared
    before, statistics = copy.deepcopy(prepared.quantizers.state_dict()), net.norm.running_mean.clone()
    untrained = pocketprune.training.metrics.evaluate(convert(prepared), split, 32, progress=False).loss
    settings = TrainSettings(epochs=3, batch_size=16, lrn_rate=0.02)
    train(net, split, settings, callbacks=[QuantizationAware(prepared, frozen_share=1.0)], progress=False)
    after = prepared.quantizers.state_dict()
    assert torch.equal(net.norm.running_mean, statistics)
    assert all(not torch.equal(after[f"weights.{key}.scale"], before[f"weights.{key}.scale"])
               for key in prepared.quantizers.weights)  # fmt: skip
    first, inner = prepared.quantizers.all_activations(), "1_relu"
    assert not torch.equal(after[f"activations.{inner}.high"], before[f"activations.{inner}.high"])
    assert float(after[f"activations.{inner}.low"]) == 0  # it has no negative values
    assert next(iter(first)) == "0_x"
    trained = pocketprune.training.metrics.evaluate(convert(prepared), split, 32, progress=False).loss
    assert trained < 0.8 * untrained


def test_masks_act_before_the_round_trip_and_stay_zero_in_codes() -> None:
    net, split = small(), TinySplit()
    level = {"name": "one_shot", "target": 0.5}
    controller = pocketprune.compress(net, images(2), {"schedule": level, "mask": "hard"})
    controller.set_levels([0.5])
    prepared = calibrated(net, [split.images], QuantizationOptions()).prepared
    parts = [callback(controller), QuantizationAware(prepared)]
    train(net, split, TrainSettings(epochs=1, batch_size=32, lrn_rate=0.01), callbacks=parts, progress=False)
    kept = controller.kept()["one"]
    made = convert(prepared)
    codes = made.get_buffer("integers.one.codes")
    assert [i for i in range(8) if bool((codes[i] != 0).any())] == kept
    smaller = pocketprune.quantize(controller.remove(), [split.images])
    assert smaller.get_buffer("integers.one.codes").shape[0] == len(kept) < 8


def test_another_network_is_refused() -> None:
    prepared = calibrated(small(), [images()], QuantizationOptions()).prepared
    with pytest.raises(UserError, match="another network given than was prepared"):
        train(small(), TinySplit(), SETTINGS, callbacks=[QuantizationAware(prepared)], progress=False)
