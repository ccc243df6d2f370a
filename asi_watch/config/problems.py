"""What is wrong with a configuration: the file, the line, the key, and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from asi_watch.errors import AsiWatchError

__all__ = ["ConfigError", "Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a configuration file, or one thing to be warned of.

    Parameters
    ----------
    file : str
        The configuration file, as the operator named it.
    line : int or None
        Counted from 1; None when the fault is of the file as a whole.
    key : str
        The way to the value, such as ``cameras.roof.bracket.grace``; empty for the whole file.
    message : str
        What is wrong; after a semicolon, what would be right.
    """

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        text = f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"
        # Names and values may hold undecodable bytes and line ends: one problem, one line, always.
        escaped = text.encode("utf-8", "backslashreplace").decode()
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in escaped)


class ConfigError(AsiWatchError, ValueError):
    """A configuration that is refused.

    Parameters
    ----------
    problems : iterable of Problem
        Every fault found, in the order of the file.
    """

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
