"""Whose a product is: by the camera it names, or by the files it was made of."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from asi_watch.brackets import Exposure
from asi_watch.products import Provenance, Source

__all__ = ["files_of", "is_product_of"]


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
    return not files_of(found.sources).isdisjoint(files_of(exposures))


def files_of(files: Iterable[Exposure | Source]) -> set[tuple[str, int, int, float]]:
    """Give what tells files apart: path, size, time to the nanosecond, and exposure time."""
    return {(f.path, f.size, f.mtime_ns, f.exposure_us) for f in files}
