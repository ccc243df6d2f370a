"""Image files that strangers write: what they claim to be, whether they are whole, their pixels."""

from asi_watch.images.reading import Frame, ImageLimits, looks_complete, read_image

__all__ = ["Frame", "ImageLimits", "looks_complete", "read_image"]
