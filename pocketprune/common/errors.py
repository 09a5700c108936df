"""The one exception that a person's mistake ends in."""


class UserError(ValueError):
    """A mistake in a flag, argument or file, told in one line: its name, its value, what is accepted.

    The command line prints the line and exits with status 2; users of the library catch it as a ValueError.
    """
