"""From a YAML file to a `Config`, or to every problem of the file at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from asi_watch.config.document import MAX_BYTES, Document, read_document
from asi_watch.config.model import Config
from asi_watch.config.paths import folder_problems
from asi_watch.config.problems import ConfigError, Problem
from asi_watch.config.translate import record

__all__ = ["LoadedConfig", "dump_config", "load_config", "parse_config", "read_config"]


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration and the document it was read from, which knows the lines."""

    config: Config
    document: Document


def load_config(path: str | Path) -> Config:
    """Read and validate a configuration file.

    Parameters
    ----------
    path : str or pathlib.Path
        The YAML file; relative paths in it count from its own folder.

    Returns
    -------
    Config
        Complete, with every default filled in, and frozen.

    Raises
    ------
    ConfigError
        With every problem of the file, each with its line, key, value and what would be right.
    """
    return read_config(path).config


def read_config(path: str | Path) -> LoadedConfig:
    """Read like `load_config`, and keep the lines for warnings."""
    file = str(path)
    try:
        with Path(path).open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError([Problem(file, None, "", f"cannot be read: {reason}")]) from None
    if len(text) > MAX_BYTES:
        message = f"is larger than {MAX_BYTES // 1_000_000} MB: this is no configuration"
        raise ConfigError([Problem(file, None, "", message)])
    return parse_config(text, file, Path(path).absolute().parent)


def parse_config(text: bytes, file: str, base: Path) -> LoadedConfig:
    """Validate the text of a configuration file.

    Parameters
    ----------
    text : bytes
        YAML in UTF-8.
    file : str
        Its name, for messages.
    base : pathlib.Path
        Where relative paths count from.

    Returns
    -------
    LoadedConfig
        The configuration and its lines.

    Raises
    ------
    ConfigError
        With every problem found.
    """
    document = read_document(text, file)
    config = None
    try:
        config = Config.model_validate(document.data, context={"base": base})
    except ValidationError as error:
        record(error, document)
    for way, message in folder_problems(
        document.data, base, Config.model_fields["state_dir"].default
    ):
        document.refuse(way, message)
    if document.problems or config is None:
        # Sorted by line; problems of one line stay in the order they were found.
        raise ConfigError(sorted(document.problems, key=lambda problem: problem.line or 0))
    return LoadedConfig(config, document)


def dump_config(config: Config) -> str:
    """Write a configuration as YAML with every default filled in.

    Parameters
    ----------
    config : Config
        Any.

    Returns
    -------
    str
        A file that loads to an equal configuration.
    """
    data = config.model_dump(mode="json")
    for name, camera in config.cameras.items():
        data["cameras"][name]["products"] = [
            {"format": product.format, **product.options} for product in camera.products
        ]
    return yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )


class _Dumper(yaml.SafeDumper):
    """Writes without anchors, which nobody wants to read in a listing of settings."""

    def ignore_aliases(self, data: object) -> bool:
        return True
