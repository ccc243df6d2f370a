"""A scale for pictures that an operator can copy: which ln E is black, and which is white."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asi_watch.hdr.response import ResponseCurve

__all__ = ["picture_range", "scale_line"]


def picture_range(curve: ResponseCurve) -> tuple[float, float] | None:
    """Suggest `lnE_range`: white where the middle exposure is just saturated.

    The whole range of the exposures, which is what None means, has the sun's disc as white and
    all else dark. The curve's file knows the exposures only by the range of ln E they reach.

    Returns
    -------
    (float, float) or None
        To one decimal; None where the file does not say what exposures it was made from.
    """
    whole = curve.metadata.get("lnE_range")
    if not (isinstance(whole, list | tuple) and len(whole) == 2):
        return None
    if not all(isinstance(v, int | float) for v in whole) or not whole[0] < whole[1]:
        return None
    g = curve.log_response
    longest, shortest = float(g.min()) - whole[0], float(g.max()) - whole[1]
    white = float(g.max()) - (longest + shortest) / 2.0
    return round(float(whole[0]), 1), round(white, 1)


def scale_line(curve: ResponseCurve) -> str | None:
    """Say it as a line of the configuration."""
    found = picture_range(curve)
    if found is None:
        return None
    low, high = found
    return f"for pictures as bright as the middle exposure: lnE_range: [{low}, {high}]"
