from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asi_watch.errors import PublishError
from asi_watch.products import OutputFolder, is_temporary
from asi_watch.products.publish import STAGING_NAME

STEPS = ("open", "write", "fsync", "replace", "last fsync")
LEFTOVER = ".asi-watch-0123456789abcdef.tmp"


def publish(data: bytes, target: Path, *, root: Path | None = None) -> None:
    folder = root or target.parent
    OutputFolder(folder).publish(data, os.path.relpath(target, folder))


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_file_is_there_with_its_folders_and_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        publish(b"sky", tmp_path / "2024/05/a_hdr.jpg", root=tmp_path)
    finally:
        os.umask(old)
    assert tree(tmp_path) == {"2024/05/a_hdr.jpg": b"sky"}
    assert stat.S_IMODE((tmp_path / "2024/05/a_hdr.jpg").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "2024/05").stat().st_mode) == 0o750


@pytest.mark.parametrize("data", [b"", b"x" * 3_000_000, bytearray(b"abc"), memoryview(b"abcd")])
def test_any_bytes_will_do(tmp_path: Path, data: bytes) -> None:
    publish(data, tmp_path / "new" / "a")
    assert (tmp_path / "new" / "a").read_bytes() == bytes(data)


def test_what_is_there_is_replaced_and_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    publish(b"new", tmp_path / "a")
    other = tmp_path / "other"
    other.write_bytes(b"untouched")
    (tmp_path / "b").symlink_to(other)
    publish(b"new", tmp_path / "b")
    assert tree(tmp_path) == {"a": b"new", "b": b"new", "other": b"untouched"}
    assert not (tmp_path / "b").is_symlink()


def test_a_name_that_is_no_utf8_is_published(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe_hdr.jpg")
    publish(b"sky", tmp_path / name, root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PublishError) as caught:
        publish(b"sky", tmp_path / "file" / name, root=tmp_path)
    str(caught.value).encode()


def test_everything_is_synced_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        real_sync(descriptor)

    def replace(*args: Any, **more: Any) -> None:
        done.append("replace")
        real_replace(*args, **more)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    publish(b"sky", tmp_path / "y" / "m" / "a", root=tmp_path)
    temporary = done.pop(2)
    assert is_temporary(temporary.removeprefix("sync "))
    assert done == [f"sync {tmp_path.name}", "sync y", "replace", "sync m"]


FAILURES = {
    "open": (errno.ENOSPC, "the disk is full"),
    "write": (errno.ENOSPC, "the disk is full"),
    "fsync": (errno.EIO, "input/output error"),
    "replace": (errno.EROFS, "read-only"),
    "mkdir": (errno.EACCES, "permission denied"),
}


@pytest.mark.parametrize("call", FAILURES)
@pytest.mark.parametrize("late", [0, 1])
def test_an_error_at_any_step_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, late: int
) -> None:
    """The first (or second) call that concerns the product's own file or folder fails."""
    number, reason = FAILURES[call]
    root = tmp_path / "root"
    target = root / ("new/a" if call == "mkdir" else "a")
    root.mkdir()
    (root / "a").write_bytes(b"old")
    real = getattr(os, call)
    calls = []

    def fail(*args: Any, **more: Any) -> Any:
        if call == "open" and not (args[1] & os.O_CREAT):
            return real(*args, **more)
        calls.append(args)
        if len(calls) > late:
            raise OSError(number, os.strerror(number))
        if call == "write":
            return real(args[0], bytes(args[1])[:2])
        return real(*args, **more)

    monkeypatch.setattr(os, call, fail)
    before = len(list(Path("/proc/self/fd").iterdir()))
    if late and call not in ("write", "fsync"):
        publish(b"new", target, root=root)
        return
    with pytest.raises(PublishError, match=reason) as caught:
        publish(b"new", target, root=root)
    assert caught.value.errno == number
    assert str(caught.value).startswith(str(target))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    after = tree(root)
    if call == "fsync" and late:  # the folder's own sync, after the rename: in place, not durable
        assert after == {"a": b"new"}
    else:
        assert after == {"a": b"old"}


def test_an_interruption_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        publish(b"new", tmp_path / "a")
    assert tree(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_a_whole_file_remains(tmp_path: Path, step: str) -> None:
    (tmp_path / "a").write_bytes(b"old")
    code = f"""
import os, signal
from asi_watch.products import OutputFolder
step, left = {step.removeprefix("last ")!r}, [{2 if step.startswith("last") else 1}]
real = getattr(os, step)
def die(*args, **more):
    result = real(*args, **more)
    left[0] -= step != "open" or bool(args[1] & os.O_CREAT)
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(os, step, die)
OutputFolder({str(tmp_path)!r}).publish(b"new", "a")
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    expected = b"new" if step in ("replace", "last fsync") else b"old"
    assert (tmp_path / "a").read_bytes() == expected
    left = [name for name in tree(tmp_path) if name != "a"]
    assert all(is_temporary(name) for name in left)
    assert OutputFolder(tmp_path).sweep() == len(left) == (0 if expected == b"new" else 1)
    assert tree(tmp_path) == {"a": expected}


# --- staying inside ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["../a", "x/../../a", "x/../a", "/etc/a", ".", "", "a\0b", "/root/../a"]
)
def test_a_name_cannot_lead_out(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(PublishError, match="below"):
        OutputFolder(root).publish(b"x", target)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("where", ["outside", "inside", "nowhere"])
def test_a_linked_folder_below_the_root_is_refused(tmp_path: Path, where: str) -> None:
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to({"inside": root / "inside"}.get(where, tmp_path / where))
    for target in ("link/a", "link/deeper/a"):
        with pytest.raises(PublishError, match="symbolic link"):
            publish(b"x", root / target, root=root)
    assert tree(tmp_path) == {}


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    publish(b"x", tmp_path / "root" / "a", root=tmp_path / "root")
    assert tree(tmp_path / "real") == {"a": b"x"}


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_root_that_was_swapped_is_refused(tmp_path: Path, kind: str) -> None:
    root, elsewhere = tmp_path / "watch" / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = OutputFolder(root)
    output.publish(b"x", "2026/a")
    root.rename(tmp_path / "watch" / "aside")
    if kind == "link":
        root.symlink_to(elsewhere)
        (elsewhere / LEFTOVER).touch()
    else:
        root.mkdir()
    with pytest.raises(PublishError, match="replaced by another one") as caught:
        output.publish(b"y", "2026/a")
    assert caught.value.errno == errno.ESTALE
    assert output.sweep() == 0
    with pytest.raises(OSError, match="replaced"):
        output.open_file(LEFTOVER)
    assert set(tree(tmp_path)) - {f"elsewhere/{LEFTOVER}"} == {"watch/aside/2026/a"}


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(PublishError, match="there is a folder of that name"):
        publish(b"x", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# --- sweeping ---------------------------------------------------------------------------------


def test_only_our_own_leftovers_are_swept(tmp_path: Path) -> None:
    keep = ("a.jpg", ".asi-watch-xyz.tmp", f"{LEFTOVER}.jpg", ".hidden")
    (tmp_path / "deep").mkdir()
    for name in (*keep, LEFTOVER, f"deep/{LEFTOVER}"):
        (tmp_path / name).write_bytes(b"")
    target = tmp_path / "precious"
    target.write_bytes(b"")
    (tmp_path / ".asi-watch-1111111111111111.tmp").symlink_to(target)
    os.mkfifo(tmp_path / ".asi-watch-2222222222222222.tmp")
    assert OutputFolder(tmp_path).sweep() == 2
    assert not (tmp_path / "deep" / LEFTOVER).exists()
    assert all((tmp_path / name).exists() for name in (*keep, "precious"))
    assert OutputFolder(tmp_path / "missing").sweep() == 0
    assert OutputFolder(target).sweep() == 0


def test_a_linked_output_folder_is_swept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / LEFTOVER).touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert OutputFolder(tmp_path / "link").sweep() == 1


def test_a_file_still_being_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept, real = [], os.fsync

    def sync(descriptor: int) -> None:
        swept.append(OutputFolder(tmp_path).sweep())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    publish(b"x", tmp_path / "a")
    assert swept == [0, 0]
    assert tree(tmp_path) == {"a": b"x"}


# --- a disk that is really full ---------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=20", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_product_and_nothing_else(small_disk: Path) -> None:
    publish(b"old", small_disk / "a")
    with pytest.raises(PublishError, match="the disk is full") as caught:
        publish(bytes(1 << 20), small_disk / "a")
    assert caught.value.errno == errno.ENOSPC
    assert tree(small_disk) == {"a": b"old"}
    with contextlib.suppress(OSError):
        for i in range(30):  # no inodes left
            (small_disk / str(i)).touch()
    with pytest.raises(PublishError, match="the disk is full"):
        publish(b"new", small_disk / "b")
    with pytest.raises(PublishError, match="the disk is full"):
        publish(b"new", small_disk / "folder" / "b", root=small_disk)
    assert not [path for path in small_disk.iterdir() if re.match(r"\.|b|folder", path.name)]
    (small_disk / "0").unlink()
    publish(b"new", small_disk / "a")
    assert (small_disk / "a").read_bytes() == b"new"


# --- staging ----------------------------------------------------------------------------------


def test_temporary_files_lie_in_the_hidden_folder_and_are_swept_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], os.fsync
    output = OutputFolder(tmp_path, staging=STAGING_NAME)

    def sync(descriptor: int) -> None:
        seen.extend(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.tmp"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    output.publish(b"sky", "2026/a")
    assert len(set(seen)) == 1
    assert seen[0].startswith(f"{STAGING_NAME}/.asi-watch-")
    assert tree(tmp_path) == {"2026/a": b"sky"}
    (tmp_path / STAGING_NAME / LEFTOVER).touch()
    assert OutputFolder(tmp_path, staging=STAGING_NAME).sweep() == 1


def test_a_staging_folder_elsewhere_is_used_swept_and_never_a_link(tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    output = OutputFolder(tmp_path / "out", staging=staging)
    output.publish(b"sky", "a")
    (staging / LEFTOVER).touch()
    assert output.sweep() == 1
    (tmp_path / "out" / STAGING_NAME).symlink_to(staging)
    with pytest.raises(PublishError, match="symbolic link"):
        OutputFolder(tmp_path / "out", staging=STAGING_NAME).publish(b"x", "b")
    assert tree(tmp_path) == {"out/a": b"sky"}


def test_staging_on_another_file_system_is_refused_or_passed_over(
    tmp_path: Path, small_disk: Path
) -> None:
    with pytest.raises(PublishError, match="on another file system") as caught:
        OutputFolder(tmp_path / "out", staging=small_disk).publish(b"x", "a")
    assert caught.value.errno == errno.EXDEV
    # A folder below the output may be mounted from elsewhere.
    OutputFolder(tmp_path, staging=STAGING_NAME).publish(b"x", "disk/2026/a")
    assert tree(small_disk) == {"2026/a": b"x"}
