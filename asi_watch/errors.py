"""Errors whose text is meant for the operator: what, where, and what to do about it."""

import re

from asi_watch.files import shown

_ADDRESS = re.compile(r"<[^<>]*? at 0x[0-9a-fA-F]+>|\b0x[0-9a-fA-F]{6,}")


def without_addresses(text: str) -> str:
    """Replace addresses in memory, which libraries write and which differ from run to run."""
    return _ADDRESS.sub("…", text)


class AsiWatchError(Exception):
    """Base of every error that asi-watch raises on purpose."""


class ImageError(AsiWatchError, ValueError):
    """An image file that cannot be used.

    Parameters
    ----------
    path : str
        The file, as found.
    reason : str
        One clause: why it cannot be used.
    may_recover : bool
        True when the file may still be growing, so that trying again is worth it.
    """

    def __init__(self, path: str, reason: str, *, may_recover: bool = False) -> None:
        self.path, self.reason = path, without_addresses(reason)
        self.may_recover = may_recover
        super().__init__(f"{shown(path)}: {self.reason}")


class ResponseFileError(AsiWatchError, ValueError):
    """A response file that is not there, is damaged, or does not fit the images."""


class BracketError(AsiWatchError, ValueError):
    """A bracket that cannot be merged: too few exposures, equal times, sizes that differ."""


class PublishError(AsiWatchError, OSError):
    """A product that could not be put durably in its place."""
