"""Whose a product is: by the camera it names, or by the files it was made of."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from asi_watch.brackets import Exposure
from asi_watch.products import Provenance

__all__ = ["is_product_of"]


def is_product_of(
    found: Provenance, camera: str, slot: datetime, exposures: Iterable[Exposure]
) -> bool:
    """Tell whether a product is that of a bracket, though its camera may have had another name.

    No two cameras have a file of one path, one size and one time to the nanosecond: a product made
    of one of these exposures is this camera's, whatever it was called then.

    Parameters
    ----------
    found : Provenance
        What the product says of itself.
    camera : str
        The camera's name now.
    slot : datetime
        The bracket's.
    exposures : iterable of Exposure
        Of the bracket, now or when it was merged.
    """
    if found.slot != slot:
        return False
    if found.camera == camera:
        return True
    made_of = {(s.path, s.size, s.mtime_ns, s.exposure_us) for s in found.sources}
    return any((e.path, e.size, e.mtime_ns, e.exposure_us) in made_of for e in exposures)
