"""Errors of bad input."""

import os


class InputError(Exception):
    """Input that cannot be used: where, what was found, and what was expected.

    The command line prints it as one line and exits with status 1; nothing is written.

    Parameters
    ----------
    where : str or os.PathLike
        File, dataset inside a file, or configuration key at fault.
    found, expected : str
        Description of the present input, and of valid input.

    Examples
    --------
    >>> print(InputError("a.tif", "a text file", "a TIFF image"))
    a.tif: found a text file, expected a TIFF image
    """

    def __init__(self, where: str | os.PathLike[str], found: str, expected: str) -> None:
        self.where, self.found, self.expected = os.fspath(where), found, expected
        super().__init__(f"{self.where}: found {found}, expected {expected}")

    @property
    def errors(self) -> list["InputError"]:
        """All single errors of this one."""
        return [self]


class RenamedKeyError(InputError):
    """A key of a configuration or a flag with the name of an earlier version.

    Examples
    --------
    >>> print(RenamedKeyError("sem.train.average", "sem.train.ema_decay"))
    sem.train.average was renamed to sem.train.ema_decay
    """

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, "the name of an earlier version", new)
        self.args = (f"{old} was renamed to {new}",)


class InputErrors(InputError):
    """Several input errors at once, one line each, so that all can be fixed together."""

    def __init__(self, errors: list[InputError]) -> None:
        super().__init__(errors[0].where, errors[0].found, errors[0].expected)
        self._errors = errors
        self.args = ("\n".join(map(str, errors)),)

    @property
    def errors(self) -> list[InputError]:
        """All single errors of this one."""
        return self._errors

    @staticmethod
    def of(errors: list[InputError]) -> InputError:
        """Join errors; a single one is returned as it is."""
        return errors[0] if len(errors) == 1 else InputErrors(errors)


def causes(error: BaseException) -> list[BaseException]:
    """Return an exception and those that led to it, the last one first.

    Examples
    --------
    >>> try:
    ...     raise ValueError("b") from KeyError("a")
    ... except ValueError as error:
    ...     causes(error)
    [ValueError('b'), KeyError('a')]
    """
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found
