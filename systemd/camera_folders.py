"""Write the drop-in that lets the service reach the folders named in its configuration.

``install.sh`` runs this with the Python of the installed package. The unit shuts the service out
of everything; this opens the cameras' folders and nothing more.

Usage: ``camera_folders.py drop-in|outputs|inputs FILE``, where FILE is the effective configuration
as ``asi-watch check`` prints it (``-``: standard input).
"""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

# The unit hides these from the service: what lies below has to be mounted in by name.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
HOMES = ("/home", "/root", "/run/user")
OWN_STATE = "/var/lib/asi-watch"


class Folders(NamedTuple):
    """The folders of a configuration, each once, sorted."""

    writable: list[str]
    """Products and state."""
    watched: list[str]
    readable: list[str]
    """Where response files of the operator lie."""


def folders_of(config: dict[str, Any]) -> Folders:
    """Return the folders of an effective configuration (absolute paths)."""
    cameras = list((config.get("cameras") or {}).values())
    state = str(config.get("state_dir") or OWN_STATE)
    writable = {str(camera["output"]) for camera in cameras}
    # StateDirectory= opens the usual place already.
    if not _below(state, (OWN_STATE,)):
        writable.add(state)
    watched = {str(camera["watch"]) for camera in cameras}
    readable = {str(Path(c["response"]).parent) for c in cameras if c.get("response")}
    return Folders(sorted(writable), sorted(watched), sorted(readable))


def drop_in(folders: Folders) -> str:
    """Return the text of the drop-in.

    Watched folders are opened for writing too: the daemon proves that events arrive by a file of
    its own, and retention may remove old exposures. The folders' own permissions still rule.
    """
    lines = [
        "# Written by install.sh from the configuration; changes here are lost. After changing a",
        "# path there, run: sudo /opt/asi-watch/share/asi-watch/install.sh --folders",
        "[Service]",
    ]
    opened = [*folders.writable, *folders.watched]
    if any(_below(path, HOMES) for path in (*opened, *folders.readable)):
        # Homes stay empty to the service but for what is mounted in below.
        lines.append("ProtectHome=tmpfs")
    for path in sorted(set(opened)):
        lines.append(f"BindPaths={_quoted(path, bind=True)}" if _below(path, HIDDEN) else "")
        lines.append(f"ReadWritePaths={_quoted(path)}")
    lines += [
        f"BindReadOnlyPaths={_quoted(path, bind=True)}"
        for path in folders.readable
        if _below(path, HIDDEN) and not _below(path, tuple(opened))
    ]
    return "\n".join(filter(None, lines)) + "\n"


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(PurePosixPath(path).is_relative_to(root) for root in roots)


def _quoted(path: str, *, bind: bool = False) -> str:
    """Quote a path as systemd reads it; ``-``: a folder that is missing is left out."""
    if any(ord(char) < 32 for char in path):
        raise ValueError(f"{path!r}: a folder with control characters cannot be given to systemd")
    text = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if bind:
        # Source and target are separated by a colon, and unescaped once more.
        text = text.replace(":", "\\\\:")
    return f'"-{text}"'


def main(arguments: list[str]) -> int:
    """Print what was asked for."""
    what, name = arguments
    text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    folders = folders_of(yaml.safe_load(text))
    if what == "drop-in":
        sys.stdout.write(drop_in(folders))
    else:
        wanted = folders.writable if what == "outputs" else folders.watched
        sys.stdout.write("".join(f"{path}\0" for path in wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
