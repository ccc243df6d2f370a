"""The work that `benchmarks.growth` counts, under valgrind: merges of made-up frames, in order.

Each argument is EXPOSURESxROWS. Everything is as small as can be, as it is run some fifty times
slower than usual; instructions hardly depend on what is in the pictures.
"""

import sys

import numpy as np

from asi_watch.hdr import engine
from asi_watch.hdr.merging import open_merge
from benchmarks.settings import MERGE

WIDTH = 2048


def main() -> None:
    """Merge each bracket into one 8-bit picture, by one call of the kernel; say which it is."""
    curve = np.repeat(np.log((np.arange(256) + 1.0) / 129)[:, None], 3, axis=1)
    work = [tuple(map(int, word.split("x"))) for word in sys.argv[1:]]
    rows = max(height for _, height in work)
    picture = np.random.default_rng(1).integers(0, 256, (rows, WIDTH, 3), dtype=np.uint8)
    for exposures, height in work:
        merge = open_merge(MERGE, curve, (height, WIDTH, 3), threads=1)
        for number in range(exposures):
            merge.add(picture[:height], 80.0 * 2**number)
        merge.picture(out=np.empty((height, WIDTH, 3), np.uint8))
    print(engine.kernel_name())


if __name__ == "__main__":
    main()
