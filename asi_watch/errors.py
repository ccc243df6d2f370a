"""Errors whose text is meant for the operator: what, where, and what to do about it."""

from __future__ import annotations

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


class CurveMismatchError(ResponseFileError):
    """A curve of another number of channels than the images: both may be sound.

    Callers that have another curve, or none, may go on: it is no fault of the bracket.

    Parameters
    ----------
    name : str
        What was to be merged, ready to be shown.
    curve_channels, image_channels : int
    """

    def __init__(self, name: str, curve_channels: int, image_channels: int) -> None:
        super().__init__(
            f"{name}: the image has {image_channels} channels, the response curve {curve_channels}"
        )
        self.curve_channels = curve_channels
        self.image_channels = image_channels


class BracketError(AsiWatchError, ValueError):
    """A bracket that cannot be merged: too few exposures, equal times, sizes that differ."""


class PublishError(AsiWatchError, OSError):
    """A product that could not be put durably in its place."""
