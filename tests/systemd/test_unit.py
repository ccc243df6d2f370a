"""The unit, its drop-in and install.sh, read by systemd's and the shell's own checkers."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "asi-watch.service"
INSTALL = SYSTEMD / "install.sh"
PROGRAM = "/opt/asi-watch/bin/asi-watch"

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


def load_camera_folders() -> ModuleType:
    spec = importlib.util.spec_from_file_location("camera_folders", SYSTEMD / "camera_folders.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


camera_folders = load_camera_folders()


def drop_in_for(*cameras: dict[str, str | None], state_dir: str = "/var/lib/asi-watch") -> str:
    named = {f"camera{n}": camera for n, camera in enumerate(cameras)}
    config = {"state_dir": state_dir, "cameras": named}
    text: str = camera_folders.drop_in(camera_folders.folders_of(config))
    return text


def settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and line[0] not in "#["]


def analyze(tmp_path: Path, *arguments: str, drop_in: str = "") -> subprocess.CompletedProcess[str]:
    """Analyze the unit, with a program that exists here in the place of the installed one."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))
    (tmp_path / f"{UNIT.name}.d").mkdir()
    (tmp_path / f"{UNIT.name}.d" / "10-camera-folders.conf").write_text(drop_in)
    command = ["systemd-analyze", *arguments, str(unit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.systemd
@needs_analyze
@pytest.mark.parametrize("folder", ["/srv/asi/roof", "/srv/all sky/100 %", "/home/cam/a:b"])
def test_systemd_understands_every_line(tmp_path: Path, folder: str) -> None:
    drop_in = drop_in_for({"watch": folder, "output": f"{folder}-hdr", "response": None})
    seen = analyze(tmp_path, "verify", drop_in=drop_in)
    # verify returns 0 for unknown keys, so that its silence is what counts.
    assert (seen.returncode, seen.stdout + seen.stderr) == (0, "")


@pytest.mark.systemd
@needs_analyze
def test_a_mistake_in_the_drop_in_would_be_seen(tmp_path: Path) -> None:
    seen = analyze(tmp_path, "verify", drop_in="[Service]\nReadWritePath=/srv\n")
    assert "ReadWritePath" in seen.stderr


@pytest.mark.systemd
@needs_analyze
def test_the_exposure_is_at_most_one(tmp_path: Path) -> None:
    seen = analyze(tmp_path, "security", "--offline=true", "--no-pager", "--threshold=10")
    if "unrecognized option" in seen.stderr:
        pytest.skip("this systemd-analyze cannot judge a unit offline (systemd before 250)")
    assert seen.returncode == 0, seen.stdout
    found = re.search(r"exposure level for .*: ([\d.]+)", seen.stdout)
    assert found and float(found[1]) <= 1.0


def test_the_unit_promises_what_the_daemon_does() -> None:
    lines = UNIT.read_text().splitlines()
    for line in (
        "Type=notify",
        "NotifyAccess=main",
        "Restart=always",
        "RestartPreventExitStatus=2",
        "User=asi-watch",
        f"ExecStart={PROGRAM} run -c /etc/asi-watch/asi-watch.yaml",
    ):
        assert line in lines
    # inotify is deaf at the symbolic link that DynamicUser= makes of the state folder.
    assert not any(line.startswith("DynamicUser") for line in lines)


def test_folders_are_opened_once_each() -> None:
    text = drop_in_for(
        {"watch": "/srv/a", "output": "/srv/hdr", "response": "/srv/curves/a.npz"},
        {"watch": "/srv/b", "output": "/srv/hdr", "response": None},
    )
    assert settings(text) == [
        'ReadWritePaths="-/srv/a"',
        'ReadWritePaths="-/srv/b"',
        'ReadWritePaths="-/srv/hdr"',
    ]


def test_what_lies_in_a_home_is_mounted_in() -> None:
    text = drop_in_for(
        {"watch": "/home/cam/in", "output": "/tmp/out", "response": "/root/curves/a.npz"},
        state_dir="/home/cam/state",
    )
    assert settings(text) == [
        "ProtectHome=tmpfs",
        'BindPaths="-/home/cam/in"',
        'ReadWritePaths="-/home/cam/in"',
        'BindPaths="-/home/cam/state"',
        'ReadWritePaths="-/home/cam/state"',
        'BindPaths="-/tmp/out"',
        'ReadWritePaths="-/tmp/out"',
        'BindReadOnlyPaths="-/root/curves"',
    ]


def test_no_path_can_add_a_setting() -> None:
    with pytest.raises(ValueError, match="control characters"):
        drop_in_for({"watch": "/srv/a\nUser=root", "output": "/srv/b"})
    text = drop_in_for({"watch": '/srv/a" User=root %h \\', "output": "/srv/b"})
    assert 'ReadWritePaths="-/srv/a\\" User=root %%h \\\\"' in settings(text)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away: needs root")
OTHER = 12345


@pytest.fixture
def root_folder() -> Iterator[Path]:
    """A folder that root alone reaches by folders of root's, as /srv is."""
    with tempfile.TemporaryDirectory(dir="/var") as name:
        yield Path(name)


@needs_root
def test_a_folder_is_made_for_the_account_and_its_parents_stay_roots(root_folder: Path) -> None:
    target = root_folder / "a b" / "hdr\nnew line"
    camera_folders.make_folder(str(target), OTHER, OTHER)
    assert (target.stat().st_uid, target.stat().st_mode & 0o777) == (OTHER, 0o750)
    assert target.parent.stat().st_uid == 0


@needs_root
def test_a_folder_that_is_there_keeps_its_owner(root_folder: Path) -> None:
    camera_folders.make_folder(str(root_folder), OTHER, OTHER)
    assert root_folder.stat().st_uid == 0


@needs_root
def test_links_of_root_are_followed(root_folder: Path) -> None:
    (root_folder / "disk").mkdir()
    (root_folder / "srv").symlink_to("disk")
    camera_folders.make_folder(str(root_folder / "srv" / "hdr"), OTHER, OTHER)
    assert (root_folder / "disk" / "hdr").stat().st_uid == OTHER


@needs_root
def test_links_of_others_give_nothing_away(root_folder: Path) -> None:
    theirs, roots = root_folder / "theirs", root_folder / "roots"
    theirs.mkdir()
    roots.mkdir()
    (theirs / "output").symlink_to(roots)
    os.chown(theirs, OTHER, OTHER)
    for path in (theirs / "output", theirs / "output" / "hdr"):
        with pytest.raises(camera_folders.UnsafePathError, match="other than root"):
            camera_folders.make_folder(str(path), OTHER, OTHER)
    assert list(roots.iterdir()) == []
    assert roots.stat().st_uid == 0


@needs_root
@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_path_that_is_changed_meanwhile_gives_nothing_away(
    root_folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = root_folder / "secret"
    secret.mkdir(mode=0o700)
    (secret / "key").touch()
    mkdir = os.mkdir

    def raced(name: str, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        (root_folder / name).rmdir()
        if kind == "link":
            (root_folder / name).symlink_to(secret)
        else:
            secret.rename(root_folder / name)

    monkeypatch.setattr(os, "mkdir", raced)
    with pytest.raises((camera_folders.UnsafePathError, OSError)):
        camera_folders.make_folder(str(root_folder / "hdr"), OTHER, OTHER)
    assert all(path.stat().st_uid == 0 for path in root_folder.rglob("*"))


def script_function(name: str) -> str:
    """Cut one function out of the script, to run it alone."""
    found = re.search(rf"^{name}\(\) \{{.*?^\}}$", INSTALL.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def test_purging_removes_only_what_the_daemon_made(tmp_path: Path) -> None:
    state = tmp_path / "state folder"
    (state / "curves" / "roof").mkdir(parents=True)
    (state / "backup").mkdir()
    (state / "curves" / "roof" / "a.npz").touch()
    (state / "pictures" / "2026").mkdir(parents=True)
    for name in (
        "ledger.sqlite3",
        "ledger.sqlite3-wal",
        "lock",
        "status.json",
        "pictures/2026/a.jpg",
    ):
        (state / name).touch()
    body = script_function("remove_state")
    program = f"say() {{ echo \"$*\"; }}\nSTATE='{state}'\n{body}\nremove_state"
    seen = subprocess.run(["bash", "-euc", program], capture_output=True, text=True, check=True)
    assert "holds other files and stays" in seen.stdout
    left = sorted(str(p.relative_to(state)) for p in state.rglob("*") if p.is_file())
    assert left == ["pictures/2026/a.jpg"]


def test_a_python_with_a_space_in_its_path_is_one_word(tmp_path: Path) -> None:
    folder = tmp_path / "my python"
    folder.mkdir()
    wrapper = folder / "python3"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    functions = script_function("find_python")
    program = f"usable_python() {{ [[ $1 == '{wrapper}' ]]; }}\nfail() {{ echo \"$*\"; exit 1; }}\n"
    program += f"python='{wrapper}'\n{functions}\nfind_python"
    seen = subprocess.run(["bash", "-euc", program], capture_output=True, text=True, check=False)
    assert seen.stdout.strip() == str(wrapper)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not on this machine")
def test_the_scripts_are_sound_shell() -> None:
    scripts = [INSTALL, SYSTEMD.parent / ".ci" / "run"]
    seen = subprocess.run(
        ["shellcheck", *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert seen.stdout == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not on this machine")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--dry-run"], 0, "+ put the unit at"),
        (["--uninstall", "--dry-run"], 0, "pictures stay"),
        (["--help"], 0, "never pictures"),
        (["--purge"], 1, "--purge goes with --uninstall"),
        (["--delete-everything"], 1, "unknown"),
        (["--uninstall"], 1, ("needs root", "nobody to ask", "needs systemd")),
    ],
)
def test_install_shows_and_changes_nothing(
    arguments: list[str], code: int, says: str | tuple[str, ...]
) -> None:
    if Path("/opt/asi-watch").exists():
        pytest.skip("asi-watch is installed on this machine")
    seen = subprocess.run(
        ["bash", str(INSTALL), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    said = seen.stdout + seen.stderr
    if "no Python 3.11 or newer" in said:
        pytest.skip("this machine's Python lies in a home or has no like, which install.sh refuses")
    assert seen.returncode == code, said
    assert any(text in said for text in ((says,) if isinstance(says, str) else says))
    assert not Path("/opt/asi-watch").exists()


def test_products_and_their_staging_are_one_mount() -> None:
    """A rename between two paths that are opened by themselves fails."""
    camera = {
        "watch": "/srv/asi/in",
        "output": "/srv/asi/out",
        "staging": "/srv/asi/staging",
        "products": [{"format": "exr", "output": "/srv/asi/exr"}],
        "camera_data": "/etc/cameras/roof.yaml",
    }
    folders = camera_folders.folders_of({"cameras": {"roof": camera}})
    assert folders.writable == ["/srv/asi/exr", "/srv/asi/out", "/srv/asi/staging"]
    assert folders.readable == ["/etc/cameras"]
    lines = camera_folders.drop_in(folders).splitlines()
    assert [line for line in lines if "ReadWrite" in line] == ['ReadWritePaths="-/srv/asi"']
