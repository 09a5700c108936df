"""Settings: dataclass fields that are also the flags of the command line.

A flag that sets an option of the engine takes default, teaching text and accepted values from there (`flag_of`,
`flags_of`); any other flag has them in its own field (`setting`).
"""

import dataclasses
import types
import typing

from pocketprune.common.errors import UserError
from pocketprune.common.options import Accepted, expectation_of

PREFIX = "cp_"  # of flags whose engine's argument has the same name without it


def setting(default: object, teach: str, *, accept: Accepted = None, argument: str = "") -> typing.Any:
    """Return a dataclass field that is also a flag.

    Args:
        default: None stands for a value that the network or the data set brings along ("its own").
        teach: what the help page says.
        accept: the numbers or words accepted.
        argument: the argument of the engine that the flag sets; "": the flag's own name, without "cp_".
    """
    return dataclasses.field(default=default, metadata={"teach": teach, "accept": accept, "argument": argument})


def flag_of(options: type, name: str, *, argument: str = "", teach: str = "") -> typing.Any:
    """Return a field like `setting` for one option of the engine.

    Args:
        options: the dataclass of the engine that has the option as its field `name`.
        argument: as for `setting`; "": `name`.
        teach: what the help page says, where it says more than the engine.
    """
    field = next(field for field in dataclasses.fields(options) if field.name == name)
    teach = teach or field.metadata["teach"]
    return setting(field.default, teach, accept=field.metadata["accept"], argument=argument or name)


class Concern:
    """Base of the settings of one concern: checks every value, wherever the settings come from."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if expected := expectation_of(field, value):
                raise UserError(f"--{field.name}={value}: {expected}")


def flags_of(options: type, name: str, title: str, *, prefix: str) -> typing.Any:
    """Return a concern, a frozen dataclass called `name`, with a flag for each option of the engine's dataclass.

    Args:
        options: the dataclass of the engine.
        title: of the concern, on the help page.
        prefix: of the flags, such as "ddpg_"; the engine's arguments are then called "ddpg.tau" and so on.
    """
    kinds = typing.get_type_hints(options)
    flags = [
        (prefix + field.name, kinds[field.name], flag_of(options, field.name, argument=f"{prefix[:-1]}.{field.name}"))
        for field in dataclasses.fields(options)
    ]
    concern = dataclasses.make_dataclass(name, flags, bases=(Concern,), frozen=True)
    concern.__doc__ = title
    return concern


def argument_of(field: dataclasses.Field) -> str:
    """Return the argument of the engine that a flag sets."""
    return field.metadata["argument"] or field.name.removeprefix(PREFIX)


def kinds_of(concern: type[Concern]) -> dict[str, type]:
    """Return field name -> bool, int, float or str; an optional number (int | None) counts as its number."""
    return {name: _kind(hint) for name, hint in typing.get_type_hints(concern).items()}


def _kind(hint: typing.Any) -> type:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
