"""`{"algorithm": "quantization"}` beside `filter_pruning`: masks act on the weights, then quantisers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.compat.nncf.controller import WRITERS, FilterPruningController
from pocketprune.compat.nncf.inputs import adaptation_batches
from pocketprune.compat.nncf.schema import QUANTIZATION
from pocketprune.compat.nncf.scopes import Scopes
from pocketprune.compat.nncf.statistics import NNCFStatistics, QuantizationStatistics
from pocketprune.quantization.conversion import convert
from pocketprune.quantization.options import QuantizationOptions
from pocketprune.quantization.prepared import PreparedNet
from pocketprune.quantization.quantizing import calibrated
from pocketprune.quantization.training import attach, detach

SAMPLES = 256  # NNCF's default of num_init_samples
TOLERANCE = 0.25  # of an exported file: where a kernel rounds to the neighbouring code, the outputs move


@dataclass(frozen=True)
class Quantization:
    """What an entry asks for.

    Attributes:
        options: how to quantise.
        samples: images that ranges are fitted to.
        ignored: scopes that stay in float.
        path: of the entry in the configuration.
    """

    options: QuantizationOptions
    samples: int
    ignored: tuple[str, ...]
    path: str


def quantization_of(config: Mapping[str, Any]) -> Quantization | None:
    """Return the quantisation that a checked configuration asks for; None where it asks for none.

    Raises:
        UserError: more than one entry asks for it.
    """
    listed = config.get("compression") or []
    entries = [listed] if isinstance(listed, Mapping) else list(listed)
    found = [(n, entry) for n, entry in enumerate(entries) if entry["algorithm"] == QUANTIZATION]
    if len(found) > 1:
        raise UserError(f"{len(found)} entries of quantization given; one is accepted", argument="compression")
    if not found:
        return None
    number, entry = found[0]
    weights, activations = entry.get("weights", {}), entry.get("activations", {})
    seven = entry.get("overflow_fix", "disable") == "enable"
    options = QuantizationOptions(
        weight_bits=int(weights.get("bits", 7 if seven else 8)),
        activation_bits=int(activations.get("bits", 8)),
        per_channel=weights.get("per_channel", True),
    )
    ignored = entry.get("ignored_scopes", ())
    samples = entry.get("initializer", {}).get("range", {}).get("num_init_samples", SAMPLES)
    texts = (ignored,) if isinstance(ignored, str) else tuple(ignored)
    return Quantization(options, int(samples), texts, f"compression[{number}]")


def with_quantization(
    ctrl: FilterPruningController,
    given: Quantization | None,
    scopes: Scopes,
    loader: Iterable[Any] | None,
    state: Mapping[str, Any] | None = None,
) -> Any:
    """Return the controller of both algorithms, or `ctrl` itself where no quantisation is asked for.

    Args:
        ctrl: the controller of the pruning.
        given: what is asked for.
        scopes: the names of the network's operations.
        loader: batches that ranges are fitted to.
        state: from `get_compression_state` of an earlier controller of both.

    Raises:
        UserError: no data was registered, or a scope means nothing.
    """
    if given is None:
        return ctrl
    if loader is None:
        raise UserError(
            "ranges are measured on images; register_default_init_args(config, train_loader) hands them over",
            argument=given.path,
        )
    scopes.check(given.ignored, f"{given.path}.ignored_scopes")
    options = replace(given.options, ignore=tuple(sorted(scopes.layers(given.ignored))))
    batches = adaptation_batches(loader, given.samples, device_of(ctrl.model))
    made = PruningQuantizationController(ctrl, options, batches)
    if state is not None:
        made.load_state(state["ctrl_state"])
    return made


class PruningQuantizationController:
    """Prunes and quantises one network. What it does not do itself, the controller of the pruning does.

    Attributes:
        pruning: the controller of the pruning.
        prepared: the network with its quantisers, in its forward from now on.
    """

    def __init__(self, pruning: FilterPruningController, options: QuantizationOptions, batches: list[Tensor]) -> None:
        self.pruning, self._options, self._batches = pruning, options, batches
        with pruning.hooks_away:
            found = calibrated(pruning.model, batches, replace(options, correct_bias=False))
        self.prepared: PreparedNet = found.prepared
        attach(self.prepared, device_of(pruning.model))

    def __getattr__(self, name: str) -> Any:
        """Return what the controller of the pruning has."""
        return getattr(vars(self)["pruning"], name)

    def statistics(self, quickly_collected_only: bool = False) -> NNCFStatistics:
        """Return what is pruned and quantised at present."""
        step = self.prepared.step
        own = QuantizationStatistics(step.layers, step.activations, self.prepared.in_float)
        return replace(self.pruning.statistics(quickly_collected_only), quantization=own)

    def get_compression_state(self) -> dict[str, Any]:
        """Return what `create_compressed_model` takes as `compression_state`: tensors and plain values."""
        state = self.pruning.get_compression_state()
        own = {name: tensor.detach().clone() for name, tensor in self.prepared.quantizers.state_dict().items()}
        return {**state, "ctrl_state": {**state["ctrl_state"], QUANTIZATION: own}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back the part `ctrl_state` of what `get_compression_state` returned.

        Raises:
            UserError: it is of a run without quantisation.
        """
        if QUANTIZATION not in state:
            raise UserError("of a run without quantization", argument="compression_state")
        self.pruning.load_state(state)
        self.prepared.quantizers.load_state_dict(state[QUANTIZATION])

    def strip(self, do_copy: bool = True) -> nn.Module:
        """Return the smaller network in integers. The network itself stays as it is, whatever `do_copy` says.

        Ranges of activations are those that training left, the scales of weights are fitted to what stays of them.
        """
        detach(self.prepared)
        try:
            small = self.pruning.strip()
        finally:
            attach(self.prepared, device_of(self.pruning.model))
        made = calibrated(small, self._batches, replace(self._options, correct_bias=False)).prepared
        learned = self.prepared.quantizers.all_activations()
        with torch.no_grad():
            for name, part in made.quantizers.all_activations().items():
                if name in learned:
                    part.load_state_dict(learned[name].state_dict())
        return convert(made)

    def export_model(self, save_path: str, save_format: str | None = None, **_: Any) -> None:
        """Write the smaller network in integers as a file: .onnx with QuantizeLinear, .xml (OpenVINO) or .pt2.

        Raises:
            UserError: another format, or the errors of `pocketprune.export_onnx`.
        """
        suffix = Path(save_path).suffix
        if suffix not in WRITERS or (save_format is not None and not save_format.startswith("onnx")):
            raise UserError(
                f"'{save_path}' given; a name that ends in {', '.join(WRITERS)} is accepted", argument="save_path"
            )
        WRITERS[suffix](save_path, self.strip(), self._batches[0][:2], tolerance=TOLERANCE)
