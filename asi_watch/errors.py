"""Errors whose text is meant for the operator: what, where, and what to do about it."""

import re

from asi_watch.files import shown

_ADDRESS = re.compile(r"<[^<>]*? at 0x[0-9a-fA-F]+>|\b0x[0-9a-fA-F]{6,}")


def without_addresses(text: str) -> str:
    """Return a text without addresses in memory, by which libraries name their objects.

    They differ from run to run, and so would products and rows.
    """
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
        reason = without_addresses(reason)
        super().__init__(f"{shown(path)}: {reason}")
        self.path = path
        self.reason = reason
        self.may_recover = may_recover


class ResponseFileError(AsiWatchError, ValueError):
    """A response file that is not there, is damaged, or does not fit the images."""


class BracketError(AsiWatchError, ValueError):
    """A bracket that cannot be merged: too few exposures, equal times, sizes that differ."""


class PublishError(AsiWatchError, OSError):
    """A product that could not be put durably in its place."""
