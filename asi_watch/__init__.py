"""HDR images from the exposure brackets of all-sky cameras, live on the camera PC."""

__version__ = "0.2.0"
