"""The way in: a network and a configuration become a controller."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nncf import ranking
from pocketprune.compat.nncf.config import NNCFConfig
from pocketprune.compat.nncf.controller import FilterPruningController
from pocketprune.compat.nncf.inputs import example_inputs
from pocketprune.compat.nncf.prunable import candidates
from pocketprune.compat.nncf.quantized import QuantizedPruningController
from pocketprune.compat.nncf.schema import CONFIG
from pocketprune.compat.nncf.scopes import Scopes
from pocketprune.compat.nncf.settings import filter_pruning_of, quantization_of
from pocketprune.compression.controller import compress_analysed
from pocketprune.compression.costs import FlopCosts
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.verification import check_groups

WRAPPERS = ("module.", "nncf_module.", "_orig_mod.")
"""What wrappers put before the names of a network's tensors."""


def create_compressed_model(
    model: nn.Module,
    config: NNCFConfig,
    compression_state: Mapping[str, Any] | None = None,
    dummy_forward_fn: Any = None,
    wrap_inputs_fn: Any = None,
    wrap_outputs_fn: Any = None,
    dump_graphs: bool = False,
    *,
    allow_inexact: bool = False,
) -> tuple[FilterPruningController, nn.Module]:
    """Prepare a network for pruning by a configuration.

    Args:
        model: the network with its trained weights. It is the network that is returned, still a plain one.
        config: the configuration.
        compression_state: from `get_compression_state` of an earlier controller, with which this one goes on.
        dummy_forward_fn, wrap_inputs_fn, wrap_outputs_fn: None; the network is traced as it is.
        dump_graphs: accepted and not used.
        allow_inexact: whether layers before a layer or group norm are pruned too, as in NNCF. The norm's statistics
            change with the removal, so the smaller network does not compute what the masked one does.

    Returns:
        The controller, and the network.

    Raises:
        UserError: a configuration that is not accepted, or that cannot be carried out on the network.
    """
    for name, value in (("dummy_forward_fn", dummy_forward_fn), ("wrap_inputs_fn", wrap_inputs_fn)):
        if value is not None or wrap_outputs_fn is not None:
            raise UserError("given; None is accepted, as the network is traced by torch.export", argument=name)
    CONFIG(config, "")
    config = config if isinstance(config, NNCFConfig) else NNCFConfig(config)
    given, registered = filter_pruning_of(config), config.registered
    example = example_inputs(model, config)
    structure = analyse(model, example, allow_inexact=allow_inexact)
    check_groups(structure, structure.traced.example)
    scopes = Scopes(structure)
    found = candidates(structure, given, scopes)
    clusters = [candidate for candidate in found if not candidate.reason]
    groups = [cluster.group for cluster in clusters]
    costs = FlopCosts(structure, groups)
    policy = given.policy(tuple(group.name for group in groups), allow_inexact=allow_inexact)
    control = compress_analysed(structure, policy, cost=costs.flops, idle=True)
    own = (control, given, found, scopes, costs, registered.train_loader, example)
    options = quantization_of(config, scopes)
    ctrl = FilterPruningController(*own) if options is None else QuantizedPruningController(*own)
    if compression_state is not None:
        if isinstance(ctrl, QuantizedPruningController) and options is not None:
            ctrl.quantize(options, fit=False)
        ctrl.load_state(compression_state["ctrl_state"])
        return ctrl, model
    if given.load:
        control.planner.coefficients = ranking.load(given.load, clusters, scopes)
    elif given.learned:
        ranking.learn(control, given, registered, ctrl)
    if given.save:
        ranking.save(given.save, control.planner.coefficients, clusters, scopes)
    ctrl.set_pruning_level(given.init, run_batchnorm_adaptation=given.init > 0)
    if isinstance(ctrl, QuantizedPruningController) and options is not None:
        ctrl.quantize(options, fit=True)
    return ctrl, model


def load_state(model: nn.Module, state_dict_to_load: Mapping[str, Any], is_resume: bool = False) -> int:
    """Load tensors by name into a network, whatever wrappers stood around the one that they were saved from.

    Args:
        model: the network.
        state_dict_to_load: names and tensors.
        is_resume: whether every name must match; else those that do not are told in a warning.

    Returns:
        The number of tensors loaded.

    Raises:
        UserError: names or shapes do not match, with `is_resume`.
    """
    own = {_bare(name): (name, tensor.shape) for name, tensor in model.state_dict().items()}
    given = {_bare(name): tensor for name, tensor in state_dict_to_load.items()}
    fits = {name for name, tensor in given.items() if name in own and own[name][1] == tensor.shape}
    lost = sorted({*own, *given} - fits)
    if lost:
        shown = f"{len(lost)} tensors do not match: {', '.join(lost[:4])}{', ...' if len(lost) > 4 else ''}"
        if is_resume:
            raise UserError(shown, argument="state_dict_to_load")
        warnings.warn(f"load_state: {shown}", stacklevel=2)
    model.load_state_dict({own[name][0]: given[name] for name in fits}, strict=False)
    return len(fits)


def _bare(name: str) -> str:
    """Return a tensor's name without what wrappers put before it."""
    while prefix := next((prefix for prefix in WRAPPERS if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name
