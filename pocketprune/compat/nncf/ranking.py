"""The learned ranking of an NNCF configuration: learned with a script's functions, or read from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.common.registry import one_line
from pocketprune.compat.nncf.config import Registered
from pocketprune.compat.nncf.prunable import Candidate
from pocketprune.compat.nncf.scopes import Scopes
from pocketprune.compat.nncf.settings import FilterPruning
from pocketprune.compression.controller import Controller
from pocketprune.compression.learned import Coefficients, learn_ranking

OPTIMIZER = partial(torch.optim.SGD, lr=1e-2, momentum=0.9, weight_decay=5e-4, nesterov=True)
"""Trains each candidate for some steps, unless the script says by what."""


def learn(control: Controller, given: FilterPruning, registered: Registered, ctrl: Any) -> None:
    """Let a controller learn its ranking; `ctrl` is what the script's functions know as the controller.

    Raises:
        UserError: the script has not registered what that needs.
    """
    needed = ("train_steps_fn", "val_loader", "validate_fn")
    missing = [name for name in needed if getattr(registered, name) is None]
    if missing:
        raise UserError(
            f"not registered; learned_ranking needs {', '.join(needed)} of register_default_init_args",
            argument=missing[0],
        )
    assert registered.train_steps_fn is not None
    assert registered.validate_fn is not None
    train, validate = registered.train_steps_fn, registered.validate_fn
    optimizer_of = registered.legr_train_optimizer or OPTIMIZER

    def score(net: nn.Module) -> float:
        if given.train_steps:
            train(registered.train_loader, net, optimizer_of(net.parameters()), ctrl, given.train_steps)
        _, loss = validate(net, registered.val_loader)
        return -float(loss)

    learn_ranking(control, score, given.evolution, level=given.max_pruning)


def save(path: str, coefficients: Coefficients, clusters: Sequence[Candidate], scopes: Scopes) -> None:
    """Write coefficients as NNCF does: its name of each layer -> [scale, shift]."""
    plain: dict[str, list[float]] = {}
    for cluster in clusters:
        scale, shift = coefficients.get(cluster.group.name, (1.0, 0.0))
        plain |= {scopes.names[name]: [scale, shift / len(cluster.names)] for name in cluster.names}
    write_atomically(Path(path), f"{json.dumps(plain, indent=2)}\n".encode())


def load(path: str, clusters: Sequence[Candidate], scopes: Scopes) -> Coefficients:
    """Read a file of coefficients, with NNCF's or the layers' own names.

    Raises:
        UserError: it cannot be read, or lacks a layer, or the layers of one group differ in their scale.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        pairs = {scopes.layer(key) or key: (float(scale), float(shift)) for key, (scale, shift) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)})", argument="load_ranking_coeffs_path") from error
    found: Coefficients = {}
    for cluster in clusters:
        missing = next((name for name in cluster.names if name not in pairs), None)
        if missing is not None:
            raise UserError(f"{path} has no coefficients of '{missing}'", argument="load_ranking_coeffs_path")
        own = [pairs[name] for name in cluster.names]
        if len({scale for scale, _ in own}) > 1:
            raise UserError(
                f"{path} has several scales for {', '.join(cluster.names)}, which are pruned together",
                argument="load_ranking_coeffs_path",
            )
        found[cluster.group.name] = (own[0][0], sum(shift for _, shift in own))
    return found
