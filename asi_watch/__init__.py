"""HDR images from the exposure brackets of all-sky cameras, live on the camera PC."""

from typing import Any

__version__ = "0.2.0"
__all__ = ["__version__", "read_product"]


def __getattr__(name: str) -> Any:
    # Looked up when it is needed: the command line must not wait for OpenCV.
    if name == "read_product":
        from asi_watch.products.read_back import read_product

        return read_product
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
