"""Builds the merge kernel; everything else about the package is in pyproject.toml.

The kernel is optional: where there is no compiler the package installs without it, and merges in
numpy, with the same bytes as result but slower.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("asi_watch/hdr/kernel")

KERNEL = Extension(
    "asi_watch.hdr._kernel",
    sources=sorted(map(str, SOURCES.glob("*.c"))),
    depends=sorted(map(str, SOURCES.glob("*.h"))),
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    # No contraction to fused multiply-add: the results are to be those of numpy, to the byte.
    extra_compile_args=["-O3", "-ffp-contract=off"] if os.name == "posix" else [],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[KERNEL], options={"bdist_wheel": {"py_limited_api": "cp311"}})
