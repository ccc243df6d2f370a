"""``asi-watch doctor``: what keeps, or will keep, a camera PC from publishing, and the remedies."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from asi_watch import __version__
from asi_watch.cli import _options as options
from asi_watch.cli import config_option
from asi_watch.cli.check_command import Examined, examine
from asi_watch.config.loading import ConfigError, LoadedConfig, read_config
from asi_watch.config.model import CameraConfig, Config
from asi_watch.errors import AsiWatchError
from asi_watch.files import answered, counted, shown

if TYPE_CHECKING:
    from asi_watch.live.ledger.ledger import Ledger

_EPILOG = """\b
Examples:
  sudo asi-watch doctor -c /etc/asi-watch/asi-watch.yaml
  asi-watch doctor -c asi-watch.yaml --json | jq .findings
"""
_UNIT = "asi-watch.service"
_UNIT_FOLDERS = tuple(map(Path, ("/etc/systemd/system", "/usr/lib/systemd/system")))
_ANSWER_WITHIN = 5.0
_ROWS, _SOON_DAYS = 300, 14
_LEAST_CODES = 128
_CLOCK_WITHIN = timedelta(minutes=5)
_HERE = "of this machine"


class Finding(NamedTuple):
    """Something that needs doing: where, what is wrong, and what to do."""

    check: str
    where: str
    text: str
    remedy: str


@click.command(epilog=_EPILOG)
@config_option
@click.option(
    "--user", metavar="NAME", help="Whom permissions are asked for [default: the unit's]."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(config_path: str, user: str | None, as_json: bool) -> None:
    """Examine configuration, folders, clock, disk, curves, unit and daemon, each with a remedy.

    Run it as root to have permissions tried as the service's user. Exit code 1 if something needs
    doing.
    """
    options.echo_log()
    try:
        loaded = read_config(config_path)
    except ConfigError as error:
        text = "correct the file; docs/configuration.md explains every key"
        places = ((p.key or f"line {p.line}", p.message) for p in error.problems)
        findings = [Finding("configuration", *place, text) for place in places]
        facts: list[str] = []
    else:
        findings, facts = _examine(loaded, user)
    if as_json:
        rows = [finding._asdict() for finding in findings]
        document = {"version": __version__, "findings": rows, "facts": facts}
        click.echo(json.dumps(document, indent=2))
    else:
        for fact in facts:
            click.echo(shown(fact))
        for finding in findings:
            place = f"{finding.check}: {finding.where}"
            click.secho(shown(f"{place}: {finding.text}"), fg="yellow")
            click.echo(f"    → {shown(finding.remedy)}")
        click.echo(counted(len(findings), "finding") if findings else "nothing needs doing")
    if findings:
        raise SystemExit(1)


def _examine(loaded: LoadedConfig, user: str | None) -> tuple[list[Finding], list[str]]:
    config = loaded.config
    facts: list[str] = []
    examined = examine(config)
    findings = list(_as_findings(loaded, examined, facts))
    findings += _permissions(loaded, examined, user or _unit_setting("User"), facts)
    for name, camera in config.cameras.items():
        findings += _share(camera)
        findings += _clock(camera, examined)
        findings += _coverage(name, examined)
    findings += [
        *_watch_limits(config),
        *_network_time(),
        *_unit(),
        *_opened(config),
        *_daemon(config, facts),
    ]
    try:
        findings += _from_ledger(config, facts)
    except (AsiWatchError, OSError) as error:
        facts.append(f"ledger: nothing to read: {error}")
    return findings, facts


def _as_findings(loaded: LoadedConfig, examined: Examined, facts: list[str]) -> Iterator[Finding]:
    """Turn what `check` says into findings: the remedy follows the semicolon."""
    for way, text in (*examined.problems, *examined.warnings):
        problem = loaded.document.problem(way, text)
        if text.startswith("no response curve"):
            facts.append(f"{problem.key}: {text}")  # the daemon sees to it
            continue
        what, _, remedy = problem.message.partition("; ")
        line = f"see line {problem.line} of {problem.file}, and docs/configuration.md"
        yield Finding("configuration", problem.key, what, remedy or line)


# -- permissions, space, limits, shares --------------------------------------------------------


def _permissions(
    loaded: LoadedConfig, examined: Examined, user: str | None, facts: list[str]
) -> Iterator[Finding]:
    """Try what the service does with files and folders, as its user."""
    wanted: dict[tuple[str, int], str] = {(loaded.document.file, os.R_OK): "read"}
    folders = [loaded.config.state_dir]
    for name, camera in loaded.config.cameras.items():
        folders.append(camera.output)
        if camera.watch.is_dir():
            wanted[str(camera.watch), os.R_OK | os.X_OK] = "read"
        wanted |= {
            (str(camera.watch / path), os.R_OK): "read"
            for path, _ in examined.newest[name].fitting[:1]
        }
        if camera.response and camera.response.exists():
            wanted[str(camera.response), os.R_OK] = "read"
    for folder in folders:
        there = next((place for place in (folder, *folder.parents) if place.is_dir()), folder)
        wanted[str(there), os.W_OK | os.X_OK] = f"write {folder}" if there != folder else "write"
    who = user or pwd.getpwuid(os.getuid()).pw_name
    for (path, mode), what in wanted.items():
        may = _may(who, path, mode)
        if may is None:
            facts.append(f"permissions: cannot be tried as {who}; run this as root")
            return
        if not may:
            word = "rwX" if mode & os.W_OK else "rX"
            remedy = f"sudo setfacl -R -m u:{who}:{word} {path}, and x on the folders above it"
            yield Finding("permissions", path, f"{who} cannot {what}", remedy)
    facts.append(f"permissions: tried as {who}")


def _may(user: str, path: str, mode: int) -> bool | None:
    """Ask the system whether a user may use a file so; None where that cannot be asked."""
    try:
        account = pwd.getpwnam(user)
        if account.pw_uid == os.getuid():
            return os.access(path, mode)
        letters = [x for x, bit in (("r", os.R_OK), ("w", os.W_OK), ("x", os.X_OK)) if mode & bit]
        asked = [word for letter in letters for word in ("-a", f"-{letter}", path)][1:]
        done = subprocess.run(
            ["/usr/bin/test", *asked],
            check=False,
            timeout=30,
            cwd="/",
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=os.getgrouplist(user, account.pw_gid),
        )
    except (KeyError, OSError, subprocess.SubprocessError):
        return None
    return done.returncode == 0


def _share(camera: CameraConfig) -> Iterator[Finding]:
    from asi_watch.live.watching.observer import file_system_of, is_remote

    (kind,) = answered(_ANSWER_WITHIN, lambda: file_system_of(camera.watch))
    if kind is None:
        text, remedy = "does not answer", "look at the server and the mount"
        yield Finding("share", str(camera.watch), text, remedy)
    elif is_remote(kind) and camera.watch_mode == "events":
        text = f"{kind} gives no events of what other machines write"
        yield Finding("share", str(camera.watch), text, "write watch_mode: auto")


def _watch_limits(config: Config) -> Iterator[Finding]:
    """Compare the kernel's limits with the folders that are looked at by events."""
    folders = 0
    for camera in config.cameras.values():
        since = time.time() - camera.scan.lookback.total_seconds()
        (found,) = answered(_ANSWER_WITHIN, partial(_hot_folders, camera.watch, since))
        folders += (found or 0) if camera.watch_mode != "polling" else 0
    for name, needed in (("watches", 2 * folders), ("instances", 8), ("queued_events", 16384)):
        file = Path(f"/proc/sys/fs/inotify/max_{'user_' if name != 'queued_events' else ''}{name}")
        try:
            limit = int(file.read_text())
        except (OSError, ValueError):
            continue
        if limit < needed:
            key = ".".join(file.parts[3:])
            remedy = f"sudo sysctl -w {key}={max(4 * needed, 65536)}, and put it into /etc/sysctl.d"
            yield Finding("inotify", key, f"{limit} is less than the {needed} wanted", remedy)


def _hot_folders(root: Path, since: float) -> int:
    """Count the folders, of the first 100,000, that were written to since then."""
    found = islice(os.walk(root), 100_000)
    return sum(Path(folder).stat().st_mtime >= since for folder, _, _ in found)


# -- clock and curves --------------------------------------------------------------------------


def _clock(camera: CameraConfig, examined: Examined) -> Iterator[Finding]:
    ahead = examined.newest[camera.name].ahead()
    if ahead is None or abs(ahead) < _CLOCK_WITHIN:
        return
    hours = round(ahead / timedelta(hours=1))
    text = f"names are {options.span_text(abs(ahead).total_seconds(), 0)}"
    text += f" {'ahead of' if ahead > timedelta(0) else 'behind'} the times of the files"
    remedy = "set the clocks of camera and machine by NTP"
    if hours and abs(ahead - timedelta(hours=hours)) < _CLOCK_WITHIN:
        now = datetime.now(camera.pattern.timezone).utcoffset() or timedelta(0)
        offset = round(now / timedelta(hours=1)) + hours
        zone = f"Etc/GMT{-offset:+d}" if offset else "UTC"
        remedy = f"write timezone: {zone}, if the clocks are right"
    yield Finding("clock", camera.name, text, remedy)


def _network_time() -> Iterator[Finding]:
    """Ask systemd whether the machine's clock is set by NTP."""
    tool = shutil.which("timedatectl")
    answer = _output(tool, "show", "-p", "NTPSynchronized", "--value") if tool else ""
    if answer == "no":
        remedy = "sudo timedatectl set-ntp true, and let the machine reach a time server"
        yield Finding("clock", _HERE, "it is not set by NTP", remedy)


def _coverage(name: str, examined: Examined) -> Iterator[Finding]:
    for channels, file in examined.curves[name].files.items():
        report = file.curve.metadata.get("report")
        samples = report.get("samples_per_code") if isinstance(report, dict) else None
        if not isinstance(samples, list) or not all(isinstance(codes, list) for codes in samples):
            continue
        least = min((sum(n > 0 for n in codes) for codes in samples), default=256)
        if least < _LEAST_CODES:
            text = f"the curve of {channels} channels rests on samples at {least} of 256 codes"
            remedy = "calibrate by day, with clouds and clear sky: asi-watch calibrate"
            yield Finding("curve", f"{name}: {shown(file.path)}", text, remedy)


# -- unit, daemon, ledger ----------------------------------------------------------------------


def _unit_file() -> Path | None:
    return next((f / _UNIT for f in _UNIT_FOLDERS if (f / _UNIT).is_file()), None)


def _unit_setting(key: str) -> str | None:
    """Read a setting of the installed unit, None without one."""
    unit = _unit_file()
    lines = unit.read_text(errors="replace").splitlines() if unit else []
    return next((line.partition("=")[2] for line in lines if line.startswith(f"{key}=")), None)


def _unit() -> Iterator[Finding]:
    """Compare the installed unit, and the program it starts, with this version."""
    unit, ours = _unit_file(), Path(sys.prefix, "share/asi-watch", _UNIT)
    if unit is None:
        return
    try:
        if ours.is_file() and ours.read_bytes() != unit.read_bytes():
            remedy = f"sudo {ours.parent}/install.sh --yes; own settings belong into a drop-in"
            yield Finding("unit", str(unit), "it is not that of the installed version", remedy)
    except OSError:
        return
    program = (_unit_setting("ExecStart") or "").split(" ")[0]
    version = _output(program, "--version") if program else ""
    if version and not version.endswith(f" {__version__}"):
        text = f"it starts {version}, and this is {__version__}"
        yield Finding("unit", str(unit), text, f"run {program} doctor, or install this version")


def _opened(config: Config) -> Iterator[Finding]:
    """Find outputs that the unit's drop-ins do not open: the service sees them read-only."""
    unit = _unit_file()
    drop_ins = sorted(unit.with_name(f"{_UNIT}.d").glob("*.conf")) if unit else []
    lines = [line for file in drop_ins for line in file.read_text(errors="replace").splitlines()]
    opened = [line.partition("=")[2].strip(' "-+') for line in lines if "ReadWritePaths=" in line]
    for output in (output for camera in config.cameras.values() for output in camera.outputs):
        if unit is not None and not any(output.is_relative_to(path) for path in opened if path):
            text = "the service may not write there: no drop-in of the unit opens it"
            remedy = f"sudo {sys.prefix}/share/asi-watch/install.sh --folders"
            yield Finding("unit", str(output), text, remedy)


def _output(*arguments: str) -> str:
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, check=False, timeout=20, cwd="/"
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _daemon(config: Config, facts: list[str]) -> Iterator[Finding]:
    from asi_watch.cli.status_command import notes_of, troubles_of
    from asi_watch.live.state_folder import NotRunningError, read_status

    try:
        snapshot, _ = read_status(config.state_dir)
    except NotRunningError as error:
        yield Finding("daemon", str(config.state_dir), str(error), "sudo systemctl start asi-watch")
        return
    facts.append(f"daemon: version {snapshot.get('version')}, process {snapshot.get('pid')}")
    if snapshot.get("version") != __version__:
        text = f"it runs version {snapshot.get('version')}, installed is {__version__}"
        yield Finding("daemon", "version", text, "sudo systemctl restart asi-watch")
    for text in (*troubles_of(snapshot), *notes_of(snapshot)):
        yield Finding("daemon", "status", text, "docs/operations.md says what to do")
    for name, camera in snapshot.get("cameras", {}).items():
        if last := camera.get("last_error"):
            remedy = f"asi-watch history -c FILE --camera {name}"
            yield Finding("daemon", name, f"last error, {last['at']}: {last['what']}", remedy)


def _from_ledger(config: Config, facts: list[str]) -> Iterator[Finding]:
    from asi_watch.live.ledger.ledger import Ledger

    with Ledger(config.state_dir, read_only=True) as ledger:
        for camera in config.cameras.values():
            yield from _rows(camera, ledger)
            yield from _space(camera, ledger, config.disk.keep_free or 0, facts)
        if ledger.unreadable:
            text = f"{ledger.unreadable} of the newest rows cannot be read"
            remedy = "restore a backup of the ledger, see docs/operations.md"
            yield Finding("ledger", str(config.state_dir), text, remedy)


def _rows(camera: CameraConfig, ledger: Ledger) -> Iterator[Finding]:
    from asi_watch.live.retention import product_fault

    day = datetime.now(camera.pattern.timezone).replace(tzinfo=None) - timedelta(days=1)
    records = ledger.history(camera=camera.name, since=day, limit=10 * _ROWS)
    failed = Counter(r.reason for r in records if r.state == "failed")
    for reason, count in failed.most_common(3):
        remedy = f"asi-watch retry -c FILE --camera {camera.name} --all-failed, once it is mended"
        yield Finding("brackets", camera.name, f"{count} failed since yesterday: {reason}", remedy)
    published = [r for r in records if r.state == "published"][-_ROWS:]
    faults = [fault for r in published if (fault := product_fault(camera, r))]
    if faults:
        text = f"{len(faults)} of the newest {len(published)} products: {faults[0]}"
        remedy = f"asi-watch retry -c FILE --camera {camera.name} --published --slot TIME"
        yield Finding("products", camera.name, text, remedy)


def _space(
    camera: CameraConfig, ledger: Ledger, keep_free: int, facts: list[str]
) -> Iterator[Finding]:
    """Say how long the disk of the products lasts, by what the newest brackets took."""
    from asi_watch.live.disk import free_bytes

    records = [r for r in ledger.history(camera=camera.name, limit=_ROWS) if r.products]
    span = records[-1].slot - records[0].slot if len(records) > 1 else timedelta(0)
    if span < timedelta(minutes=10):
        return
    places = (camera.place_of(path) for r in records for path in r.products)
    written = sum(_size(root / path) for root, path in places)
    limits = [camera.retention.products]
    if _device(camera.watch) == _device(camera.output):
        written += sum(e.size for r in records for e in r.inputs)
        limits.append(camera.retention.exposures)
    a_day = written / (span / timedelta(days=1))
    (free,) = answered(_ANSWER_WITHIN, partial(free_bytes, camera.output))
    if free is None:
        return
    free -= keep_free
    days = free / a_day if a_day else float("inf")
    text = f"{free / 1e9:.0f} GB to go at {a_day / 1e9:.2g} GB a day: full in {days:.0f} days"
    facts.append(f"space: {camera.name}: {text}")
    deletes = not camera.retention.dry_run and any(limit.any for limit in limits)
    if days < _SOON_DAYS and not deletes:
        remedy = "set retention (max_age or keep_free, with dry_run: false), or add a disk"
        yield Finding("space", str(camera.output), text, remedy)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _device(path: Path) -> int | None:
    (status,) = answered(_ANSWER_WITHIN, lambda: path.stat())
    return None if status is None else status.st_dev
