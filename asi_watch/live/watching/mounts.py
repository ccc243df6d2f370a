"""What kind of file system a folder lies on, and whether inotify can be trusted there."""

from __future__ import annotations

from pathlib import Path

# inotify sees only what this machine's kernel writes; behind these another machine, a host or a
# user-space file system may be the writer. Inode numbers are not always steady there either.
_REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "fuse.",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "beegfs",
    "gpfs",
    "gfs2",
    "ocfs2",
    "orangefs",
    "virtiofs",
    "vboxsf",
    "davfs",
)
_MOUNTS = Path("/proc/self/mounts")


def is_remote(kind: str) -> bool:
    """Tell whether files on such a file system may appear without an event.

    Parameters
    ----------
    kind : str
        As `file_system_of` names it.
    """
    return kind.startswith(_REMOTE)


def file_system_of(path: Path, mounts: Path = _MOUNTS) -> str:
    """Name the type of the file system a path lies on, "" where it cannot be told.

    Parameters
    ----------
    path : Path
        Need not exist; its nearest mount point counts.
    mounts : Path
        The kernel's table of mounts.
    """
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
        resolved = path.resolve()
    except (OSError, RuntimeError):
        return ""
    best, kind = -1, ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = Path(_unescaped(fields[1]))
        # Of two mounts on one place the later one is seen.
        if len(mount.parts) >= best and resolved.is_relative_to(mount):
            best, kind = len(mount.parts), fields[2]
    return kind


def _unescaped(text: str) -> str:
    """Undo the octal escapes of blanks, tabs, newlines and backslashes."""
    head, *rest = text.split("\\")
    return head + "".join(
        chr(int(part[:3], 8)) + part[3:] if part[:3].isdigit() else "\\" + part for part in rest
    )
