"""Settings: dataclass fields that are also the flags of the command line.

A flag that sets an option of the engine takes its default, help text and accepted values from that option (`flag_of`,
`flags_of`). Any other flag has them in its own field (`setting`).
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
        default: the value without the flag. None stands for one that the network or the data set has ("its own").
        teach: what the help page says.
        accept: the numbers or words accepted.
        argument: the argument of the engine that the flag sets; "": the flag's own name, without "cp_".
    """
    return dataclasses.field(default=default, metadata={"teach": teach, "accept": accept, "argument": argument})


def flag_of(options: type, name: str, *, argument: str = "", teach: str = "") -> typing.Any:
    """Return a field like `setting` for one option of the engine.

    Args:
        options: the dataclass of the engine that has the option.
        name: the option's field in it.
        argument: as for `setting`; "": `name`.
        teach: what the help page says, if that differs from the engine.
    """
    field = next(field for field in dataclasses.fields(options) if field.name == name)
    teach = teach or field.metadata["teach"]
    return setting(field.default, teach, accept=field.metadata["accept"], argument=argument or name)


@dataclasses.dataclass(frozen=True)
class Concern:
    """The base of the settings of one concern. It checks every value, from a command line or from Python.

    Attributes:
        title: heading of the flags on the help page.
    """

    title: typing.ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if expected := expectation_of(field, value):
                raise UserError(f"--{field.name}={value}: {expected}")


def flags_of(options: type, name: str, title: str, *, prefix: str) -> typing.Any:
    """Return a concern, a frozen dataclass called `name`, with a flag for each option of the engine's dataclass.

    Args:
        options: the dataclass of the engine.
        name: that of the concern's class.
        title: of the concern, on the help page.
        prefix: of the flags, such as "ddpg_". The engine's arguments are then called "ddpg.tau" and so on.
    """
    kinds = typing.get_type_hints(options)
    flags = [
        (prefix + field.name, kinds[field.name], flag_of(options, field.name, argument=f"{prefix[:-1]}.{field.name}"))
        for field in dataclasses.fields(options)
    ]
    return dataclasses.make_dataclass(name, flags, bases=(Concern,), namespace={"title": title}, frozen=True)


def argument_of(field: dataclasses.Field[typing.Any]) -> str:
    """Return the argument of the engine that a flag sets."""
    argument: str = field.metadata["argument"]
    return argument or field.name.removeprefix(PREFIX)


def kinds_of(concern: type[Concern]) -> dict[str, type]:
    """Return field name -> bool, int, float or str. An optional number (int | None) counts as its number."""
    hints = typing.get_type_hints(concern)
    return {field.name: _kind(hints[field.name]) for field in dataclasses.fields(concern)}


def _kind(hint: typing.Any) -> type:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind: type = next(kind for kind in kinds if kind is not type(None))
    return kind
