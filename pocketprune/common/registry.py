"""Find the callable behind a name that a person typed: a key of a registry, or `file.py:callable`."""

import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.names import similar

OWN_MODULE = "pocketprune_user_"  # how the names of modules begin that are loaded from a person's files
PROJECT = str(Path(__file__).resolve().parents[2])
HALF_LINE = 300  # characters of a quoted error, at its beginning and at its end


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
    close = similar(name, registry, cutoff=0.4)
    hint = f" (did you mean {close}?)" if close else ""
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
        close = similar(attribute, [name for name in vars(module) if not name.startswith("_")])
        hint = f" (did you mean {close}?)" if close else ""
        raise UserError(f"{flag}={spec}: {source} has no callable named '{attribute}'{hint}")
    return found


def call_accepted(builder: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Call `builder` with the options that its signature takes as keywords, except those that are None."""
    parameters = inspect.signature(builder).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return builder(**{k: v for k, v in options.items() if v is not None and (takes_any or k in names)})


def one_line(error: BaseException) -> str:
    """Return an exception's kind and text on a single line; the middle of a long text is left out."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 2 * HALF_LINE else f"{text[:HALF_LINE]} ... {text[-HALF_LINE:]}"


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn what a person's own code raises inside, or its sys.exit(), into a UserError that begins with `what`.

    Interrupts, the run's own exits and what is a UserError already stay what they are.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {one_line(error)}") from error
    except SystemExit as error:
        if type(error) is not SystemExit:
            raise
        raise UserError(f"{what}: it calls sys.exit({'' if error.code is None else repr(error.code)})") from error


@contextmanager
def watching_own_code() -> Iterator[None]:
    """Turn an error that came through a person's own file, inside, into a UserError that names the file and the line.

    An exit from anywhere is one too, the run's own excepted: a run that ends before its end has failed.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        place = _own_place(error)
        if not place and not isinstance(error, SystemExit):
            raise
        with blaming(place or "the run's own code"):
            raise


def _own_place(error: BaseException) -> str:
    """Return the last line of a person's own file that an error came through; "" where it came through none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def _is_own(filename: str) -> bool:
    """Return whether a file is a person's own: given on the command line, or neither installed nor of this project."""
    given = [module.__file__ for name, module in sys.modules.items() if name.startswith(OWN_MODULE)]
    others = (PROJECT, *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
    return filename in given or (os.path.isfile(filename) and not filename.startswith(others))


def _import(flag: str, spec: str, name: str) -> ModuleType:
    if os.getcwd() not in sys.path:  # the module may lie where the command was typed
        sys.path.append(os.getcwd())
    with blaming(f"{flag}={spec}: cannot import '{name}'"):
        return importlib.import_module(name)


def _import_file(flag: str, spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"{flag}={spec}: no such file: {path}")
    path = path.resolve()
    if str(path.parent) not in sys.path:  # the file may import its neighbours; at the end, so that they shadow nothing
        sys.path.append(str(path.parent))
    name = f"{OWN_MODULE}{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None, "a .py file always has one"
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and worker processes look a class's module up by name
    with blaming(f"{flag}={spec}: cannot import {path}"):
        try:
            module_spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return module
