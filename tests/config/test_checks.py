"""What is warned of on this machine, and folders on shares that give no answer."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from asi_watch.config import load_config, parse_config
from asi_watch.config.checks import find_warnings


def warnings_of(settings: str, watch: Path, output: Path) -> list[str]:
    text = f"state_dir: {output}\ncameras:\n  roof:\n    watch: {watch}\n    output: {output}\n"
    loaded = parse_config((text + settings).encode(), "asi.yaml", watch)
    return [str(loaded.document.problem(*found)) for found in find_warnings(loaded.config)]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    watch, output = tmp_path / "in", tmp_path / "out"
    watch.mkdir()
    output.mkdir()
    (output / "g.npz").touch()
    return watch, output


def test_nothing_to_warn_of(folders: tuple[Path, Path]) -> None:
    assert warnings_of("    response: ../out/g.npz\n    timezone: Etc/GMT-1", *folders) == []
    limits = "{exposures: {max_age: 7d, keep_free: 1GB}, products: {max_age: 30d}}"
    text = f"    response: ../out/g.npz\n    retention: {limits}"
    assert warnings_of(text, *folders) == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("bracket: {round_to: 7s, grace: 1s}", "round_to: 7s does not divide a day"),
        ("bracket: {grace: 40s}", "asi.yaml:6: cameras.roof.bracket.grace: 40s is longer than"),
        ("timezone: Europe/Berlin", "'Europe/Berlin' changes its offset"),
    ],
)
def test_warnings(settings: str, says: str, folders: tuple[Path, Path]) -> None:
    assert any(says in warning for warning in warnings_of(f"    {settings}", *folders))


def test_warnings_of_permissions(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may do everything: the answer of the system is stood in for.
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = warnings_of("    response: ../out/g.npz", *folders)
    keys = [warning.split(": ")[1] for warning in found]
    assert keys == ["state_dir", *(f"cameras.roof.{k}" for k in ("watch", "output"))]
    assert all("cannot be" in warning for warning in found)


def test_warnings_of_folders(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    watch, output = folders
    assert "does not exist yet" in warnings_of("", tmp_path / "none", output)[0]
    (tmp_path / "file").touch()
    assert not any("watch" in w for w in warnings_of("", tmp_path / "file", output))
    # A file is no question of who the user is: `check` refuses it.
    assert not any("by this user" in w for w in warnings_of("", watch, tmp_path / "file/out"))
    inside = watch / "hdr"
    response = "    response: ../out/g.npz"
    text = f"cameras: {{roof: {{watch: {watch}, output: {inside}, {response.strip()}}}}}"
    config = parse_config(f"state_dir: {output}\n{text}".encode(), "asi.yaml", watch).config
    (warning,) = find_warnings(config)
    assert "lies in the watched folder" in str(warning)


TEXT = "cameras:\n  roof:\n    watch: /share/in/../in\n    output: /share/out\n"


def test_a_configuration_is_read_while_a_share_is_dead(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    share_returns = threading.Event()
    request.addfinalizer(share_returns.set)
    monkeypatch.setattr("asi_watch.config.checks._FOLDERS_ANSWER_WITHIN", 0.05)
    monkeypatch.setattr("os.path.realpath", lambda _: share_returns.wait(60))
    config = parse_config(TEXT.encode(), "asi.yaml", Path("/base")).config
    assert str(config.cameras["roof"].output) == "/share/out"


def test_a_folder_watched_by_name_is_told_apart_while_a_share_is_dead(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    share_returns = threading.Event()
    request.addfinalizer(share_returns.set)
    monkeypatch.setattr("asi_watch.config.checks._FOLDERS_ANSWER_WITHIN", 0.05)
    monkeypatch.setattr("os.path.realpath", lambda _: share_returns.wait(60))
    same = TEXT.replace("/share/out", "/share/in")
    with pytest.raises(Exception, match="is the watched folder itself"):
        parse_config(same.encode(), "asi.yaml", Path("/base"))


def test_a_check_says_that_a_share_is_dead(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    share_returns = threading.Event()
    request.addfinalizer(share_returns.set)
    file = tmp_path / "asi.yaml"
    file.write_text(f"state_dir: {tmp_path}\n{TEXT}")
    config = load_config(file)
    monkeypatch.setattr("asi_watch.config.checks._CAMERA_ANSWERS_WITHIN", 0.05)

    def hanging(_: object) -> list[object]:
        share_returns.wait(60)
        return []

    monkeypatch.setattr("asi_watch.config.checks._folders", hanging)
    told = [text for _, text in find_warnings(config)]
    assert any("'/share/out' does not answer" in line for line in told)
