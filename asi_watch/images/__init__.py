"""Image files that strangers write: what they claim to be, whether they are whole, their pixels."""

from asi_watch.images.other_formats import Levels
from asi_watch.images.reading import Frame, looks_complete, read_image, read_stated

__all__ = ["Frame", "Levels", "looks_complete", "read_image", "read_stated"]
