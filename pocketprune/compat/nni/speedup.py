"""NNI's `ModelSpeedup`: what masks have hidden is removed for real."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.files import read_tensors
from pocketprune.common.names import nearest
from pocketprune.compression.layer_masks import kept_channels_of
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.structure.channel_groups import analyse
from pocketprune.thinning.in_place import become
from pocketprune.thinning.removal import remove_channels


class ModelSpeedup:
    """Removes from a network what masks on its layers hide.

    A channel goes where no layer sees it any more; where one of several layers of a sum keeps it, it stays. The
    network computes afterwards what it does with the columns that read removed channels at zero.

    Args:
        model: the network, which `speedup_model` makes smaller in place, as in NNI.
        dummy_input: an input.
        masks_file: the masks of a pruner, or the file that `export_model` wrote.
        map_location, batch_dim, confidence, customized_replace_func: taken for NNI's sake. Channels are followed
            exactly through the traced graph, not by the outputs for random inputs.

    Raises:
        UserError: there is no layer of a name in the masks, or a file cannot be read.
    """

    def __init__(
        self,
        model: nn.Module,
        dummy_input: ExampleInputs,
        masks_file: Mapping[str, Mapping[str, Tensor]] | str | Path,
        map_location: Any = None,
        batch_dim: int = 0,
        confidence: int = 8,
        customized_replace_func: Any = None,
    ) -> None:
        if customized_replace_func:
            raise UserError("given; layers need no function of their own here", argument="customized_replace_func")
        masks = read_tensors(masks_file) if isinstance(masks_file, (str, Path)) else masks_file
        self._model, self._dummy_input = model, dummy_input
        self._masked = _named(model, masks)

    def speedup_model(self) -> nn.Module:
        """Make the network smaller in place. Return it.

        Raises:
            UserError: it cannot be traced.
        """
        structure = analyse(self._model, self._dummy_input)
        kept = kept_channels_of(structure, self._masked)
        become(self._model, remove_channels(self._model, self._dummy_input, kept))
        return self._model


def _named(model: nn.Module, masks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return parameter name -> where it is masked. Names may have the prefix `module.` of data parallelism."""
    own = dict(model.named_parameters(remove_duplicate=False))
    layers = dict(model.named_modules())
    found = {}
    for given, parts in masks.items():
        name = given if given in layers else given.removeprefix("module.")
        if name not in layers:
            raise UserError(f"masks of layer '{given}' given{nearest(name, layers)}", argument="masks_file")
        for part, mask in parts.items():
            key = f"{name}.{part}"
            if key not in own or mask is None:
                continue
            if mask.shape != own[key].shape:
                shapes = f"{tuple(mask.shape)} given, and '{key}' is of shape {tuple(own[key].shape)}"
                raise UserError(f"masks of shape {shapes}", argument="masks_file")
            found[key] = mask == 0
    return found


def apply_compression_results(model: nn.Module, masks_file: str | Path, map_location: Any = None) -> None:
    """Put the masks of a file on a network, for good (NNI's function of that name)."""
    own = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, mask in _named(model, read_tensors(masks_file)).items():
            own[name].masked_fill_(mask.to(own[name].device), 0)
