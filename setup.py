"""Builds the two extensions in C; everything else about the package is in pyproject.toml.

Both are optional: where there is no compiler the package installs without them. It then merges in
numpy, with the same bytes as result but slower, and refuses progressive JPEGs, which it cannot
check for holes.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("asi_watch/hdr/kernel")

STABLE_ABI = [("Py_LIMITED_API", "0x030B0000")]

KERNEL = Extension(
    "asi_watch.hdr._kernel",
    sources=sorted(map(str, SOURCES.glob("*.c"))),
    depends=sorted(map(str, SOURCES.glob("*.h"))),
    define_macros=STABLE_ABI,
    # No contraction to fused multiply-add: the results are to be those of numpy, to the byte.
    extra_compile_args=["-O3", "-ffp-contract=off"] if os.name == "posix" else [],
    py_limited_api=True,
    optional=True,
)

ENTROPY = Extension(
    "asi_watch.images._entropy",
    sources=["asi_watch/images/entropy.c"],
    define_macros=STABLE_ABI,
    extra_compile_args=["-O3"] if os.name == "posix" else [],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[KERNEL, ENTROPY], options={"bdist_wheel": {"py_limited_api": "cp311"}})
