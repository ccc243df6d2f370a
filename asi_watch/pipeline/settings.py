"""The keywords of `merge_exposure_series` as the values that the house works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from numpy.typing import ArrayLike

from asi_watch.hdr.disc import SkyDisc, as_sky_disc
from asi_watch.hdr.merging import MergeSettings
from asi_watch.hdr.response import ChannelOrder, ResponseCurve, judge_curve
from asi_watch.products import ProductSpec
from asi_watch.products.spec import Format
from asi_watch.response_files import accept_curve, curve_of_array

__all__ = ["MergeChoices", "merge_choices", "product_of"]

_FORMATS = {**{name: name for name in get_args(Format)}, "jpeg": "jpg", "tif": "tiff"}


@dataclass(frozen=True, slots=True)
class MergeChoices:
    """What a caller asked for: settings, curve (BGR) and the file type, if any."""

    settings: MergeSettings
    curve: ResponseCurve | None
    filetype: str | None


def merge_choices(
    *,
    algorithm: str,
    response: ArrayLike | ResponseCurve | None = None,
    saturation: int = 255,
    low_clip: int = 5,
    high_clip: int = 250,
    weight_type: str = "triangle",
    lnE_range: Sequence[float] | None = None,
    apply_tonemapping: bool = True,
    gamma: float = 2.2,
    filetype: str | None = None,
    channel_order: Literal["BGR", "RGB"] = "BGR",
    sky_disc: SkyDisc | Sequence[float] | None = None,
) -> MergeChoices:
    """Check the keywords of a merge.

    Parameters
    ----------
    algorithm, response, saturation, low_clip, high_clip, weight_type, lnE_range, \
apply_tonemapping, gamma, filetype, sky_disc
        As in `asi_watch.hdr.merging.merge_exposure_series`.
    channel_order : {"BGR", "RGB"}
        Order of the columns of `response`.

    Returns
    -------
    MergeChoices

    Raises
    ------
    ValueError
        If a value is out of its range.
    TypeError
        From Python itself: a keyword that is none of these.
    """
    if channel_order not in get_args(ChannelOrder):
        raise ValueError(f"channel_order is 'BGR' or 'RGB'; got {channel_order!r}")
    bounds = None
    if lnE_range is not None:
        if len(lnE_range) != 2:
            raise ValueError(f"lnE_range is (low, high); got {lnE_range!r}")
        bounds = (float(lnE_range[0]), float(lnE_range[1]))
    settings = MergeSettings(
        algorithm=algorithm,
        weight_type=weight_type,
        low_clip=low_clip,
        high_clip=high_clip,
        gamma=gamma,
        lnE_range=bounds,
        saturation=saturation,
        apply_tonemapping=apply_tonemapping,
        sky_disc=as_sky_disc(sky_disc),
    )
    return MergeChoices(settings, _curve(response, channel_order), filetype)


def product_of(filetype: str, **options: Any) -> ProductSpec:
    """Give the product of a file name extension.

    Parameters
    ----------
    filetype : str
        With or without dot, in any case: jpg, jpeg, png, jp2 (pictures), exr, tiff, tif, hdr
        (linear radiance).
    **options
        Of `asi_watch.products.ProductSpec`.

    Raises
    ------
    ValueError
        If it is none of those.
    """
    name = _FORMATS.get(filetype.lower().lstrip("."))
    if name is None:
        raise ValueError(f"file type {filetype!r} is none of .{', .'.join(_FORMATS)}")
    return ProductSpec(cast(Format, name), **options)


def _curve(response: ArrayLike | ResponseCurve | None, order: ChannelOrder) -> ResponseCurve | None:
    if response is None:
        return None
    if isinstance(response, ResponseCurve):
        impossible = [p for p in judge_curve(response.log_response) if p.severity == "refuse"]
        return accept_curve(response, tuple(impossible), "response")
    return curve_of_array(response, order, "response")
