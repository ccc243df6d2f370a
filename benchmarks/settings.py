"""How brackets are merged in every benchmark: as the configuration has it by default."""

from asi_watch.hdr.merge_settings import MergeSettings

MERGE = MergeSettings(
    algorithm="debevec_custom",
    weight_type="triangle",
    low_clip=5,
    high_clip=250,
    gamma=2.2,
    lnE_range=None,
    saturation=255,
    apply_tonemapping=True,
)
