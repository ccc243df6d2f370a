"""The YAML file as frozen, validated values; the rooms below get these and never the file."""

from asi_watch.config.document import ConfigError, Problem
from asi_watch.config.loading import (
    LoadedConfig,
    dump_config,
    load_config,
    parse_config,
    read_config,
)
from asi_watch.config.model import (
    BracketConfig,
    CameraConfig,
    Config,
    DiskConfig,
    LimitsConfig,
    LogConfig,
    MergeConfig,
    ProductConfig,
    RecalibrateConfig,
    RetentionConfig,
    ScanConfig,
)

__all__ = [
    "BracketConfig",
    "CameraConfig",
    "Config",
    "ConfigError",
    "DiskConfig",
    "LimitsConfig",
    "LoadedConfig",
    "LogConfig",
    "MergeConfig",
    "Problem",
    "ProductConfig",
    "RecalibrateConfig",
    "RetentionConfig",
    "ScanConfig",
    "dump_config",
    "load_config",
    "parse_config",
    "read_config",
]
