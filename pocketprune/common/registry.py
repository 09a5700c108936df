"""Find the callable behind a name that a person typed: a key of a registry, or `file.py:callable`."""

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pocketprune.common.errors import UserError


def resolve(flag: str, name: str, registry: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Return the builder that `name` stands for.

    Args:
        flag: the flag that gave the name, for messages.
        name: a key of `registry`, `path/file.py:callable` or `module:callable`.
        registry: the builders that have a name of their own.

    Raises:
        UserError: there is no such builder; the message offers the nearest name.
    """
    if name in registry:
        return registry[name]
    if ":" in name:
        return load_callable(flag, name)
    close = difflib.get_close_matches(name, registry, n=1, cutoff=0.4)
    hint = f" (did you mean {close[0]}?)" if close else ""
    accepted = ", ".join([*registry, "path/file.py:callable"])
    raise UserError(f"{flag}={name}: unknown{hint}; accepted: {accepted}")


def load_callable(flag: str, spec: str) -> Callable[..., Any]:
    """Return the callable that `path/file.py:callable` or `module:callable` names. The file's code is run.

    Raises:
        UserError: the file, the module or the callable is missing, or importing it fails.
    """
    source, _, attribute = spec.rpartition(":")
    module = _import_file(flag, spec, Path(source)) if source.endswith(".py") else _import(flag, spec, source)
    found: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(found):
        public = [name for name in vars(module) if not name.startswith("_")]
        close = difflib.get_close_matches(attribute, public, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"{flag}={spec}: {source} has no callable named '{attribute}'{hint}")
    return found


def call_accepted(builder: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Call `builder` with the options that its signature takes as keywords, except those that are None."""
    parameters = inspect.signature(builder).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return builder(**{k: v for k, v in options.items() if v is not None and (takes_any or k in names)})


def one_line(error: BaseException) -> str:
    """Return an exception's kind and text on a single line, for messages that quote it."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _import(flag: str, spec: str, name: str) -> ModuleType:
    if os.getcwd() not in sys.path:  # the module may lie where the command was typed
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UserError(f"{flag}={spec}: cannot import '{name}': {one_line(error)}") from error


def _import_file(flag: str, spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"{flag}={spec}: no such file: {path}")
    path = path.resolve()
    if str(path.parent) not in sys.path:  # the file may import its neighbours; at the end, so that they shadow nothing
        sys.path.append(str(path.parent))
    name = f"pocketprune_user_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None, "a .py file always has one"
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and worker processes look a class's module up by name
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{flag}={spec}: cannot import {path}: {one_line(error)}") from error
    return module
