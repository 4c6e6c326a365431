"""What goes wrong, said in one line: what, which values, and the next step."""

from collections.abc import Iterable


class AnomriError(Exception):
    """Any failure that anomri foresaw; its text is one line that a user can act on."""


class BadInput(AnomriError, ValueError):
    """A file, scan or cohort that cannot be used as it is."""


class BadCall(AnomriError, ValueError):
    """Arguments that contradict each other or name something unknown."""


class NotFitted(AnomriError, RuntimeError):
    """A method was asked before `fit`, or before weights were loaded."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BadCall:
    """The error for a name that is not among the known ones, which it lists."""
    return BadCall(f"unknown {kind} '{name}'; known: {', '.join(sorted(known))}")
