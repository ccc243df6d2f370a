"""``asi-watch check``: whether a configuration is right, and what it means in full."""

from __future__ import annotations

import click

from asi_watch.cli import config_option
from asi_watch.config.checks import find_warnings
from asi_watch.config.document import ConfigError, Problem, Way
from asi_watch.config.loading import LoadedConfig, dump_config, read_config

__all__ = ["command"]


@click.command()
@config_option
def command(config_path: str) -> None:
    """Check a configuration file and print it with every default.

    The complete configuration goes to standard output as YAML. Problems go to standard error,
    all of them at once, and end in exit code 2; warnings go there too and change nothing. A
    response file that cannot be used is a problem, and a folder that is a file. What the names of
    each camera's newest files are taken for is told as well, and whether slots fit them.
    """
    from asi_watch.cli._looking import (
        disc_warnings,
        hints,
        look_into,
        name_warnings,
        names_as_read,
        response_fault,
        response_warnings,
    )
    from asi_watch.cli._places import place_faults, strangers
    from asi_watch.cli._slots import slot_warnings

    loaded = read_config(config_path)
    warnings = [_problem(loaded, way, text) for way, text in find_warnings(loaded.config)]
    problems = [_problem(loaded, way, text) for way, text in place_faults(loaded.config)]
    for name, camera in loaded.config.cameras.items():
        found = look_into(camera)
        for line in names_as_read(name, found):
            click.echo(line, err=True)
        warnings += [
            _problem(loaded, ("cameras", name, *way), text)
            for check in (name_warnings, disc_warnings, slot_warnings, response_warnings)
            for way, text in check(camera, found)
        ]
        warnings += [
            _problem(loaded, ("cameras", name, *way), text) for way, text in strangers(name, camera)
        ]
        fault = response_fault(camera, found)
        if fault is not None:
            problems.append(_problem(loaded, ("cameras", name, "response"), fault))
        for hint in hints(camera):
            click.echo(f"{name}: {hint}", err=True)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if problems:
        raise ConfigError(problems)
    click.echo(dump_config(loaded.config), nl=False)


def _problem(loaded: LoadedConfig, way: Way, text: str) -> Problem:
    return loaded.document.problem(way, text)
