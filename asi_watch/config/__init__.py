"""The YAML file as frozen, validated values: everything else gets these and never the file."""

from asi_watch.config.loading import ConfigError, dump_config, load_config, parse_config
from asi_watch.config.model import CameraConfig, Config

__all__ = ["CameraConfig", "Config", "ConfigError", "dump_config", "load_config", "parse_config"]
