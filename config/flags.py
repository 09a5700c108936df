"""Reading a command line with absl's flags, one for each field of the settings."""

import dataclasses
import typing
from collections.abc import Iterable, Sequence

from absl import flags

from config.settings import Concern, kinds_of
from pocketprune.common.errors import UserError
from pocketprune.common.names import suggestion


class _ValueParser(flags.ArgumentParser[typing.Any]):
    """A parser of one kind of values. The messages of absl's own parsers are written for developers."""

    _EXPECTED: typing.ClassVar = {bool: "true or false", int: "a whole number", float: "a number"}
    _SWITCH: typing.ClassVar = {"true": True, "1": True, "false": False, "0": False}

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def parse(self, argument: object) -> object:
        """Return a flag's text as a value of the parser's kind."""
        if not isinstance(argument, str):
            return argument
        try:
            return self._SWITCH[argument.lower()] if self.kind is bool else self.kind(argument)
        except (KeyError, ValueError):
            raise ValueError(f"expected {self._EXPECTED[self.kind]}") from None


def parse(arguments: Sequence[str], concerns: Iterable[type[Concern]]) -> dict[str, object]:
    """Return flag name -> value, for all fields of these concerns.

    Raises:
        UserError: an unknown flag, or a value of the wrong kind.
    """
    registry = flags.FlagValues()
    for concern in concerns:
        kind = kinds_of(concern)
        for field in dataclasses.fields(concern):
            parser, name = _ValueParser(kind[field.name]), field.name
            switch = kind[name] is bool
            flag = flags.Flag(parser, flags.ArgumentSerializer(), name, field.default, None, boolean=switch)
            flags.DEFINE_flag(flag, registry)
    try:
        left = registry(["run.py", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        hint = suggestion(error.flagname, registry)
        raise UserError(f"--{error.flagname}: unknown{hint} (--help lists all flags)") from None
    except (flags.Error, ValueError) as error:
        raise UserError(" ".join(str(error).removeprefix("flag ").split())) from None
    if left:
        raise UserError(f"argument {left[0]!r}: expected a flag{_as_one_word(arguments, left[0])}")
    return {name: registry[name].value for name in registry}


def _as_one_word(arguments: Sequence[str], left: str) -> str:
    """Return how to write a switch if a blank separates it from its value, else ""."""
    before = arguments[max(0, list(arguments).index(left) - 1)]
    if left.lower() in _ValueParser._SWITCH and before.startswith("-"):
        return f"; a switch takes its value as {before}={left.lower()}"
    return ""
