"""What NNI's pruners share: the layers of a config list, masks on them, export."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.compat.nni.config_list import targets_of
from pocketprune.compat.nni.units import Unit, dependent_units, single_units
from pocketprune.compression.ranking import entries_for_channels, entries_for_share, global_order, uniform_order
from pocketprune.compression.tensor_masks import TensorMasks
from pocketprune.deploy.export import export_onnx
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.numerics.criteria import evaluate, kept_channels
from pocketprune.numerics.evidence import Evidence

Masks = dict[str, dict[str, Tensor]]
"""Layer name -> "weight" and "bias" -> 1 where a number stays and 0 where it is masked, as in NNI."""

FILTERS = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Linear")


class Pruner:
    """A pruner that masks whole filters by a criterion.

    Args:
        model: the network; its weights are masked in place.
        config_list: NNI's list of dicts.
        optimizer: taken for NNI's sake.
        dependency_aware: whether layers whose channels depend on each other lose the same ones.
        dummy_input: an input, which that needs.

    Attributes:
        criterion: what scores filters, a key of `pocketprune.numerics.criteria.CRITERIA`.
        accepted: the types of layers that can be pruned.
        joint: whether the share is always one of all layers together.
        shares: whether the config list has to say how far.
        bound_model: the network.

    Raises:
        UserError: the config list breaks the schema, or means no layer.
    """

    criterion: ClassVar[str] = "l1"
    accepted: ClassVar[tuple[str, ...]] = FILTERS
    joint: ClassVar[bool] = False
    shares: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        optimizer: Any = None,
        *,
        dependency_aware: bool = False,
        dummy_input: ExampleInputs | None = None,
    ) -> None:
        if isinstance(optimizer, bool):
            raise UserError(
                f"{optimizer} given; dependency_aware={optimizer} has to be given by name", argument="optimizer"
            )
        if dependency_aware and dummy_input is None:
            raise UserError("none given; dependency_aware=True needs it", argument="dummy_input")
        self.bound_model, self.config_list, self.optimizer = model, config_list, optimizer
        self.targets = targets_of(model, config_list, self.accepted, shares=self.shares)
        self.units = self._units(dummy_input if dependency_aware else None)
        self._masks = TensorMasks(model)

    def _units(self, dummy_input: ExampleInputs | None) -> list[Unit]:
        if dummy_input is None:
            return single_units(self.targets)
        return dependent_units(self.targets, self.bound_model, dummy_input)

    def compress(self) -> nn.Module:
        """Mask what the config list says. Return the network, which is the one that was given."""
        self.update_mask()
        return self.bound_model

    def update_mask(self, shares: Mapping[int, float] | None = None) -> None:
        """Choose the masks anew.

        Args:
            shares: number of an entry of the config list -> the share that goes, in place of the entry's own.
        """
        chosen: dict[str, Tensor] = {}
        for entry in dict.fromkeys(unit.target.entry for unit in self.units):
            units = [unit for unit in self.units if unit.target.entry == entry]
            share = units[0].target.sparsity if shares is None else shares.get(entry, 0.0)
            for unit, gone in zip(units, self._gone(units, share), strict=True):
                chosen |= unit.masks(gone, self.bound_model)
        self._masks.set(chosen)

    def set_counts(self, counts: Sequence[int]) -> None:
        """Mask all but so many filters of each unit, in place of what is masked."""
        self._masks.lift()
        chosen: dict[str, Tensor] = {}
        for unit, count in zip(self.units, counts, strict=True):
            chosen |= unit.masks(self._without(unit, count), self.bound_model)
        self._masks.set(chosen)

    def _gone(self, units: Sequence[Unit], share: float) -> list[Tensor]:
        """Return the channels that go of each unit of one entry, each a boolean (c,)."""
        sizes = [unit.channels for unit in units]
        if self.joint or units[0].target.is_joint:
            order = global_order(self.scores(units), floor=1 - units[0].target.limit)
            counts = order.kept(entries_for_channels(order, share))
        else:
            order = uniform_order(sizes)
            counts = order.kept(entries_for_share(order, share))
        return [self._without(unit, count) for unit, count in zip(units, counts, strict=True)]

    def _without(self, unit: Unit, count: int) -> Tensor:
        gone = torch.ones(unit.channels, dtype=torch.bool)
        gone[kept_channels(self.criterion, self.evidence(unit), count).cpu()] = False
        return gone

    def scores(self, units: Sequence[Unit]) -> list[Tensor]:
        """Return the scores of each unit's filters."""
        found = [evaluate(self.criterion, self.evidence(unit)) for unit in units]
        return [scores for scores in found if isinstance(scores, Tensor)]

    def evidence(self, unit: Unit) -> Evidence:
        """Return what is known of a unit's filters."""
        tensors = dict(self.bound_model.named_parameters(remove_duplicate=False))
        return Evidence(channels=unit.channels, filters=[view.rows(tensors[view.tensor]) for view in unit.views])

    @property
    def masks(self) -> Masks:
        """The masks as NNI shows them."""
        shown: Masks = {}
        for name, mask in self._masks.masked.items():
            layer, _, part = name.rpartition(".")
            shown.setdefault(layer, {})[part] = (~mask).to(torch.float32)
        return shown

    def load_masks(self, masks: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take masks as `masks` shows them."""
        self._masks.set({f"{name}.{part}": mask == 0 for name, own in masks.items() for part, mask in own.items()})

    def get_pruned_weights(self, dim: int = 0) -> dict[str, tuple[int, int]]:
        """Print and return how many rows along one axis each masked layer has left, and of how many."""
        left = {}
        for name, own in self.masks.items():
            mask = own["weight"]
            alive = mask.transpose(0, dim).flatten(1).any(1) if mask.dim() > 1 else mask.bool()
            left[name] = (int(alive.sum()), len(alive))
            print(f"simulated prune {name} remain/total: {left[name][0]}/{left[name][1]}")
        return left

    def export_model(
        self,
        model_path: str | Path,
        mask_path: str | Path | None = None,
        onnx_path: str | Path | None = None,
        input_shape: Sequence[int] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        """Write the masked network's state, and its masks or an ONNX file if asked for. All load without pickled code.

        Args:
            model_path: file of the state.
            mask_path: file of the masks, for `ModelSpeedup`.
            onnx_path: file of the masked network as ONNX.
            input_shape: of one batch of inputs, which ONNX needs.
            device: where the ONNX export runs.

        Raises:
            UserError: an ONNX file is asked for without the shape.
        """
        if onnx_path is not None and input_shape is None:
            raise UserError("none given; onnx_path needs it", argument="input_shape")
        self._masks.enforce()
        _write(model_path, self.bound_model.state_dict())
        if mask_path is not None:
            _write(mask_path, self.masks)
        if onnx_path is not None and input_shape is not None:
            where = torch.device(device) if device is not None else device_of(self.bound_model)
            export_onnx(onnx_path, self.bound_model.to(where), torch.rand(*input_shape, device=where))

    def unwrap_model(self) -> None:
        """Give the network the numbers that its masks hide; `masks` says no more."""
        self._masks.lift()

    _unwrap_model = unwrap_model

    def show_pruned_weights(self, dim: int = 0) -> None:
        """Print what `get_pruned_weights` returns."""
        self.get_pruned_weights(dim)


class BuiltOn:
    """A pruner that builds on another one: what it does not have itself, export and masks among it, is that one's."""

    _base: Pruner

    @property
    def masks(self) -> Masks:
        """The masks as NNI shows them."""
        return self._base.masks

    def __getattr__(self, name: str) -> Any:
        """Return what the base pruner has: export, the rows that are left."""
        if name.startswith("_") and name != "_unwrap_model":
            raise AttributeError(name)
        return getattr(self._base, name)


def _write(path: str | Path, content: Any) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())
