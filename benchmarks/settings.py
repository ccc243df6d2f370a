"""How brackets are merged in every benchmark: as the configuration has it by default."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asi_watch.config.model import MergeConfig, ToneConfig
from asi_watch.hdr.merge_settings import MergeSettings
from asi_watch.hdr.merging import open_merge

MERGE = MergeConfig().settings(ToneConfig())


def merge_frames(
    frames: Sequence[NDArray[np.uint8]],
    times: Sequence[float],
    how: MergeSettings,
    g: NDArray[np.float32],
) -> NDArray[Any]:
    """Merge decoded frames into an 8-bit picture."""
    merge = open_merge(how, g, frames[0].shape)
    for pixels, time in zip(frames, times, strict=True):
        merge.add(pixels, time)
    return merge.picture()
