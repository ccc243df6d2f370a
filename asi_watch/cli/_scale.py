"""What an operator can set for better products: a scale for pictures, the radiance's algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asi_watch.hdr.response import ResponseCurve

__all__ = ["merge_hints", "picture_range", "scale_line"]

_RADIANCE = ("exr", "tiff", "hdr")


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


def merge_hints(
    algorithm: str, *, scaled: bool, curve: ResponseCurve | None, formats: Sequence[str]
) -> Iterator[str]:
    """Say what the settings of a merge leave to be wished for, a line each.

    Parameters
    ----------
    algorithm : str
    scaled : bool
        Whether `lnE_range` is given.
    curve : ResponseCurve or None
        What is merged with, where it is known.
    formats : sequence of str
        Of the products.

    Yields
    ------
    str
    """
    radiance = [name for name in formats if name in _RADIANCE]
    if algorithm == "debevec_custom" and radiance:
        yield (
            f"radiance ({', '.join(radiance)}) by debevec_custom: codes are stretched between the"
            " clips as in asi_core, which bends it by up to a tenth of a stop; debevec_exact keeps"
            " it linear"
        )
    only_radiance = len(radiance) == len(formats)
    if only_radiance or scaled or curve is None or not algorithm.startswith("debevec_"):
        return
    found = picture_range(curve)
    if found is not None:
        low, high = found
        yield (
            "pictures show all that the exposures can tell, up to the sun, and are dark for that;"
            f" as bright as the middle exposure: lnE_range: [{low}, {high}]"
            f" (--lne-range {low} {high})"
        )
