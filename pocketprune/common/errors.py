"""The one exception that a person's mistake ends in."""


class UserError(ValueError):
    """A mistake in an argument, flag or file, told in one line: its name, its value, what is accepted.

    The engine names arguments; the command line knows which flag sets an argument, and names that one in its place.
    Users of the library catch it as a ValueError.

    Attributes:
        message: what is wrong, without the argument's name.
        argument: the argument of the engine's function that is wrong; "" where a file or something else is.
    """

    def __init__(self, message: str, *, argument: str = "") -> None:
        super().__init__(f"{argument}: {message}" if argument else message)
        self.message, self.argument = message, argument

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the argument's name on the way between processes."""
        return _restored, (type(self), self.message, self.argument)


def _restored(kind: type[UserError], message: str, argument: str) -> UserError:
    error = kind.__new__(kind)
    UserError.__init__(error, message, argument=argument)
    return error
