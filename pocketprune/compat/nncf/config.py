"""The configuration: a dict that was checked, and what a training script registers with it."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.registry import one_line
from pocketprune.compat.nncf.schema import CONFIG

COMMENTS = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)


@dataclass
class Registered:
    """What `register_default_init_args` was given; None where it was not."""

    train_loader: Iterable[Any] | None = None
    val_loader: Iterable[Any] | None = None
    train_steps_fn: Callable[..., Any] | None = None
    validate_fn: Callable[..., Any] | None = None
    legr_train_optimizer: Callable[..., Any] | None = None


class NNCFConfig(dict[str, Any]):
    """A configuration of NNCF's schema: a plain dict that also keeps what a script registers with it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.registered = Registered()

    @classmethod
    def from_dict(cls, nncf_dict: Mapping[str, Any]) -> NNCFConfig:
        """Return a checked copy of a dict.

        Raises:
            UserError: an unknown key or a value that is not accepted; the message begins with its path.
        """
        CONFIG(nncf_dict, "")
        return cls(copy.deepcopy(dict(nncf_dict)))

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> NNCFConfig:
        """Return the configuration of a JSON file, in which comments are accepted.

        Raises:
            UserError: the file cannot be read, or the errors of `from_dict`.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            content = json.loads(COMMA.sub(r"\1", COMMENTS.sub(r"\1", text)))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: no JSON ({one_line(error)})") from error
        try:
            return cls.from_dict(content)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def register_default_init_args(
    nncf_config: NNCFConfig,
    train_loader: Iterable[Any],
    criterion: Any = None,
    criterion_fn: Any = None,
    train_steps_fn: Callable[..., Any] | None = None,
    validate_fn: Callable[..., Any] | None = None,
    val_loader: Iterable[Any] | None = None,
    autoq_eval_fn: Any = None,
    model_eval_fn: Any = None,
    distributed_callbacks: Any = None,
    execution_parameters: Any = None,
    legr_train_optimizer: Callable[..., Any] | None = None,
    device: str | None = None,
) -> NNCFConfig:
    """Register data and functions with a configuration; it is returned.

    Args:
        nncf_config: the configuration.
        train_loader: batches whose first part is the network's input. Batch-norm statistics are adapted to them.
        criterion, criterion_fn, autoq_eval_fn, model_eval_fn: of quantization; they are accepted and not used.
        train_steps_fn: (train_loader, model, optimizer, controller, steps) -> None, for the learned ranking.
        validate_fn: (model, val_loader) -> (accuracy, loss), for the learned ranking.
        val_loader: what `validate_fn` takes.
        distributed_callbacks, execution_parameters: of data parallelism; they are accepted and not used.
        legr_train_optimizer: makes an optimizer of the parameters, for the learned ranking.
        device: accepted and not used; the network's own is.
    """
    if iter(train_loader) is train_loader:
        raise UserError("can be read only once; a list or a data loader is accepted", argument="train_loader")
    nncf_config.registered = Registered(train_loader, val_loader, train_steps_fn, validate_fn, legr_train_optimizer)
    return nncf_config
