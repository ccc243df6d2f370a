"""The disks a test machine starts from: a small Debian, made once, and the project, made anew."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
INIT = Path(__file__).with_name("init.sh")
SUITE = "bookworm"
PYTHON = "3.11"
PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "kmod", "iproute2", "python3-venv", "nfs-common",
    "nfs-kernel-server",
)  # fmt: skip
TOOLS = ("qemu-system-x86_64", "mmdebstrap", "mkfs.ext4", "e2fsck")
CODE = ("asi_watch", "tests", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@dataclass(frozen=True)
class System:
    """Kernel and root disk of the test machine; never written to."""

    kernel: Path
    initrd: Path
    root: Path


def run(*command: str | Path, limit: float = 1800) -> None:
    """Run a program that must succeed."""
    words = [str(part) for part in command]
    subprocess.run(words, check=True, timeout=limit, stdin=subprocess.DEVNULL)


def missing() -> list[str]:
    """What this computer lacks for a test machine, each with the remedy."""
    lacks = [f"{tool} is not installed" for tool in TOOLS if shutil.which(tool) is None]
    if not system_folder().exists() and os.geteuid() != 0:
        lacks.append("making the machine's disk needs root, once")
    return lacks


def no_kvm() -> str | None:
    """Say why machines do not run at full speed here, None if they do."""
    kvm = Path("/dev/kvm")
    if not kvm.exists():
        return "/dev/kvm is not there: no hardware virtualisation, or not for this container"
    if not os.access(kvm, os.R_OK | os.W_OK):
        return "/dev/kvm may not be used by this user"
    # Without the processor's help (nested machines) the device may be there and be of no use.
    words = set(Path("/proc/cpuinfo").read_text().split())
    return None if words & {"vmx", "svm"} else "the processor shows neither vmx nor svm"


def cache_folder() -> Path:
    """Where the system is kept: some 1.5 GB."""
    default = Path.home() / ".cache" / "asi-watch-machine"
    return Path(os.environ.get("ASI_WATCH_MACHINE_CACHE", default))


def system_folder() -> Path:
    """Folder of the system that belongs to the present recipe."""
    recipe = [SUITE, PYTHON, *PACKAGES, *_requirements(), INIT.read_text()]
    return cache_folder() / hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]


def system() -> System:
    """Make the system, or take the one that is there."""
    folder = system_folder()
    if not folder.exists():
        fresh = folder.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _make_system(fresh)
        fresh.rename(folder)
    return System(folder / "vmlinuz", folder / "initrd.img", folder / "root.img")


def _requirements() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    return [*project["build-system"]["requires"], *project["project"]["dependencies"], "wheel"]


def _make_system(folder: Path) -> None:
    wheels, root = folder / "wheels", folder / "root"
    run(
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--dest", wheels, f"--python-version={PYTHON}", "--only-binary=:all:", *_requirements(),
    )  # fmt: skip
    install = ["/opt/asi/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/wheels"]
    inside = f"""
        python3 -m venv /opt/asi
        {shlex.join([*install, *_requirements()])}
        rm -rf /wheels
        mkdir -p /code /data /mnt
    """
    hooks = (
        f"copy-in {shlex.quote(str(wheels))} /",
        f'chroot "$1" sh -euc {shlex.quote(inside)}',
        f"upload {shlex.quote(str(INIT))} /sbin/asi-init",
        'chmod 755 "$1/sbin/asi-init"',
    )
    run(
        "mmdebstrap", "-q", "--variant=minbase", f"--include={','.join(PACKAGES)}",
        *(f"--customize-hook={hook}" for hook in hooks), SUITE, root,
    )  # fmt: skip
    for part in ("vmlinuz", "initrd.img"):
        (found,) = (root / "boot").glob(f"{part}-*")
        shutil.copy(found, folder / part)
    disk(folder / "root.img", "asi-root", 4 << 30, content=root)
    shutil.rmtree(root)
    shutil.rmtree(wheels)


def disk(path: Path, label: str, size: int, content: Path | None = None) -> Path:
    """Make a raw ext4 disk.

    Parameters
    ----------
    path : Path
    label : str
        By which the machine finds it.
    size : int
        Bytes; only what is used takes room.
    content : Path, optional
        Folder to fill it with.
    """
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    # The whole journal and inode tables at once: nothing is left to be done at the first mount.
    options = ["-E", "lazy_itable_init=0,lazy_journal_init=0"]
    options += [] if content is None else ["-d", str(content)]
    run("mkfs.ext4", "-q", "-F", "-L", label, *options, path)
    return path


def copy_code(folder: Path) -> Path:
    """Copy the project as it is now, with its merge compiled: it may be edited meanwhile.

    The compiled part uses the limited interface of Python, and runs with any version.
    """
    ignored = shutil.ignore_patterns("__pycache__", "*.so", ".*", "*.egg-info")
    folder.mkdir(parents=True)
    for name in CODE:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=folder, check=True, timeout=300, stdin=subprocess.DEVNULL)
    return folder


def code_disk(path: Path) -> Path:
    """Make a disk with the project as it is now."""
    with tempfile.TemporaryDirectory() as folder:
        return disk(path, "asi-code", 256 << 20, copy_code(Path(folder, "code")))
