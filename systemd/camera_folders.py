"""Open the folders that are named in the configuration to the service, and make missing ones.

``install.sh`` runs this as root with the Python of the installed package. The unit shuts the
service out of everything; the drop-in opens the cameras' folders and nothing more.

Usage: ``camera_folders.py drop-in|outputs|inputs FILE``, where FILE is the effective configuration
as ``asi-watch check`` prints it (``-``: standard input); ``camera_folders.py make FOLDER ACCOUNT``.
"""

from __future__ import annotations

import os
import pwd
import stat
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
    """Products, what they are staged in, and state."""
    watched: list[str]
    readable: list[str]
    """Where response files and descriptions of cameras lie."""
    joined: tuple[str, ...] = ()
    """Folders that hold a camera's products and their staging: each must be one mount."""


def folders_of(config: dict[str, Any]) -> Folders:
    """Return the folders of an effective configuration (absolute paths)."""
    cameras = list((config.get("cameras") or {}).values())
    state = str(config.get("state_dir") or OWN_STATE)
    writable, joined = set[str](), set[str]()
    for camera in cameras:
        own = [
            camera["output"],
            *(product.get("output") for product in camera.get("products") or ()),
        ]
        outputs = {str(path) for path in own if path}
        if camera.get("staging"):
            outputs.add(str(camera["staging"]))
            joined.add(os.path.commonpath(outputs))
        writable |= outputs
    # StateDirectory= opens the usual place already.
    if not _below(state, (OWN_STATE,)):
        writable.add(state)
    watched = {str(camera["watch"]) for camera in cameras}
    files = (c.get(key) for c in cameras for key in ("response", "camera_data"))
    readable = {str(Path(file).parent) for file in files if file}
    return Folders(sorted(writable), sorted(watched), sorted(readable), tuple(sorted(joined)))


def drop_in(folders: Folders) -> str:
    """Return the text of the drop-in.

    Watched folders are opened for writing too: retention may remove old exposures. The folders'
    own permissions still rule.
    """
    lines = [
        "# Written by install.sh from the configuration; changes here are lost. After changing a",
        "# path there, run: sudo /opt/asi-watch/share/asi-watch/install.sh --folders",
        "[Service]",
    ]
    # A rename from one mount to another fails, so no other path below these is opened by itself.
    opened = [*folders.joined]
    rest = (*folders.writable, *folders.watched)
    opened += [path for path in rest if not _below(path, folders.joined)]
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


# --- making a folder ----------------------------------------------------------------------------

MOST_LINKS = 40


class UnsafePathError(Exception):
    """Somebody other than root decides where a path leads."""


def make_folder(path: str, user: int, group: int) -> None:
    """Make a missing folder and give it to an account; missing parents stay root's.

    Every step is taken from the open folder before it, and a symbolic link is followed only where
    nobody but root could have put it: nobody else can make this give away a folder of root's.

    Raises
    ------
    UnsafePathError
        If a link on the way is not root's, or somebody changes the path meanwhile.
    OSError
    """
    current = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", ".")][::-1]
    links = 0
    try:
        while parts:
            name = parts.pop()
            target = _link_target(current, name)
            if target is not None:
                links += 1
                if links > MOST_LINKS:
                    raise UnsafePathError(f"{path}: too many symbolic links")
                parts += [p for p in PurePosixPath(target).parts if p not in ("/", ".")][::-1]
                following = os.open("/", os.O_RDONLY | os.O_DIRECTORY) if target[0] == "/" else None
            else:
                following = _enter(current, name, None if parts else (user, group))
            if following is not None:
                os.close(current)
                current = following
    finally:
        os.close(current)


def _link_target(folder: int, name: str) -> str | None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(found.st_mode):
        return None
    holder = os.fstat(folder)
    if found.st_uid or holder.st_uid or holder.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafePathError(f"{name} is a symbolic link that an account other than root can set")
    return os.readlink(name, dir_fd=folder)


def _enter(folder: int, name: str, owner: tuple[int, int] | None) -> int:
    """Open a folder below an open one, made if it is missing; give a new last one to its owner."""
    try:
        os.mkdir(name, 0o755 if owner is None else 0o700, dir_fd=folder)
        made = True
    except FileExistsError:
        made = False
    entered = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    if made and owner is not None:
        found = os.fstat(entered)
        if found.st_uid or stat.S_IMODE(found.st_mode) != 0o700 or os.listdir(entered):  # noqa: PTH208
            os.close(entered)
            raise UnsafePathError(f"{name} was replaced while it was made")
        os.fchown(entered, *owner)
        os.fchmod(entered, 0o750)
    return entered


def main(arguments: list[str]) -> int:
    """Print or make what was asked for."""
    what, name, *account = arguments
    try:
        if what == "make":
            entry = pwd.getpwnam(account[0])
            make_folder(name, entry.pw_uid, entry.pw_gid)
            return 0
        return _print(what, name)
    except (OSError, ValueError, UnsafePathError) as error:
        sys.stderr.write(f"install.sh: {error}\n")
        return 1


def _print(what: str, name: str) -> int:
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
