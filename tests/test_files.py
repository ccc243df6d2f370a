"""Folders that strangers write: nothing done through a held folder can be led out of it."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from asi_watch.files import FolderChangedError, HeldFolder, answered, signature


def put_file(held: HeldFolder, below: str, data: bytes) -> None:
    where = Path(below)
    with held.folder(where.parent, create_mode=0o750) as folder:
        descriptor = os.open(where.name, os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=folder)
        os.write(descriptor, data)
        os.close(descriptor)


def remove_file(held: HeldFolder, below: str) -> None:
    where = Path(below)
    with held.folder(where.parent) as folder:
        os.unlink(where.name, dir_fd=folder)


def test_files_are_made_renamed_read_and_removed_below(tmp_path: Path) -> None:
    with HeldFolder(tmp_path / "a" / "out", create_mode=0o751) as held:
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o751
        put_file(held, "x/y/1.tmp", b"one")
        assert stat.S_IMODE((held.path / "x").stat().st_mode) == 0o750
        with held.folder("x/y") as here, held.folder("x") as there:
            os.replace("1.tmp", "1.jpg", src_dir_fd=here, dst_dir_fd=there)
        descriptor, status = held.open_file("x/1.jpg")
        assert os.read(descriptor, 10) == b"one"
        assert status.st_size == 3
        os.close(descriptor)
        remove_file(held, "x/1.jpg")
        assert list((held.path / "x").iterdir()) == [held.path / "x" / "y"]


def test_a_folder_that_is_not_there_is_made_only_if_asked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HeldFolder(tmp_path / "out")
    with HeldFolder(tmp_path) as held, pytest.raises(FileNotFoundError), held.folder("sub"):
        pass


@pytest.mark.parametrize("kind", ["link", "folder", "nothing"])
def test_a_root_that_changed_its_identity_is_refused(tmp_path: Path, kind: str) -> None:
    root, away = tmp_path / "out", tmp_path / "away"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with HeldFolder(root, create_mode=0o750) as held:
        root.rename(away)
        if kind == "link":
            root.symlink_to(elsewhere)
        elif kind == "folder":
            root.mkdir()
        with pytest.raises(FolderChangedError, match="replaced") as caught:
            put_file(held, "1.jpg", b"")
        assert caught.value.errno == errno.ESTALE
        assert caught.value.filename == str(root)
    assert not [*elsewhere.iterdir(), *away.iterdir()]


def test_links_below_the_root_are_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.jpg").write_bytes(b"theirs")
    with HeldFolder(tmp_path / "out", create_mode=0o750) as held:
        (held.path / "sub").symlink_to(elsewhere)
        (held.path / "file.jpg").symlink_to(elsewhere / "1.jpg")
        for action in (
            lambda: put_file(held, "sub/2.jpg", b"x"),
            lambda: remove_file(held, "sub/1.jpg"),
            lambda: held.open_file("file.jpg"),
        ):
            with pytest.raises(OSError, match=r"Not a directory|symbolic link"):
                action()
        for name in ("../x.jpg", "/etc/x.jpg"):
            with pytest.raises(ValueError, match="is not a path below"):
                remove_file(held, name)
        remove_file(held, "file.jpg")
    assert (elsewhere / "1.jpg").read_bytes() == b"theirs"
    assert len(list(elsewhere.iterdir())) == 1


def test_links_on_the_way_to_the_root_must_be_ones_own_or_roots(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "out").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("./real/../real")
    (tmp_path / "absolute").symlink_to(real)
    for name in ("relative", "absolute"):
        with HeldFolder(tmp_path / name / "out") as held:
            assert held.identity == ((real / "out").stat().st_dev, (real / "out").stat().st_ino)
            held.check()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels"):
        HeldFolder(tmp_path / "loop")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of another user")
def test_a_link_of_another_user_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    os.chown(tmp_path / "out", 12345, 12345, follow_symlinks=False)
    with pytest.raises(OSError, match="belongs to another user") as caught:
        HeldFolder(tmp_path / "out", create_mode=0o750)
    assert caught.value.errno == errno.ELOOP


def test_a_held_folder_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with HeldFolder(tmp_path / "out", create_mode=0o750) as held:
        put_file(held, "a/b/c.jpg", b"x")
        for name in ("none/x", "a/b/c.jpg/x"):
            with pytest.raises(OSError, match=r"No such|Not a"):
                remove_file(held, name)
    with pytest.raises(FileNotFoundError):
        HeldFolder(tmp_path / "none" / "out")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- file systems that may never answer ----------------------------------------------------------


def test_answers_come_in_the_order_of_the_questions() -> None:
    late = threading.Event()

    def slow() -> int:
        assert late.wait(60)
        return 1

    def quick() -> int:
        late.set()
        return 2

    assert answered(60, slow, quick) == [1, 2]


def test_whoever_does_not_answer_is_not_waited_for(request: pytest.FixtureRequest) -> None:
    share_returns = threading.Event()
    request.addfinalizer(share_returns.set)
    answers = answered(0.5, share_returns.wait, lambda: True)
    assert answers == [None, True]


def test_an_error_of_the_file_system_is_no_answer(tmp_path: Path) -> None:
    assert answered(10, (tmp_path / "not there").stat) == [None]


def test_a_signature_tells_contents_apart(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = signature(path)
    assert first == signature(path)
    assert first.size == 3
    os.utime(path, ns=(5, 5))
    assert signature(path) != first
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        signature(link)
