from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from asi_watch.config import parse_config
from asi_watch.config.checks import find_warnings
from asi_watch.config.loading import load_config
from asi_watch.files import answered
from asi_watch.live.disk import DiskGuard


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


def test_time_in_which_the_process_stood_still_is_no_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = iter([False, False, True])

    class Answers(threading.Semaphore):
        """Each wait takes ten minutes by the clock; the third one ends with an answer."""

        def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
            clock.append(clock[-1] + 600.0)
            return next(waits)

    clock = [0.0]
    came = threading.Event()
    threads = SimpleNamespace(Thread=threading.Thread, Semaphore=Answers)
    monkeypatch.setattr("asi_watch.files.threading", threads)
    monkeypatch.setattr("asi_watch.files.time", SimpleNamespace(monotonic=lambda: clock[-1]))
    answered(1.0, came.set)
    assert list(waits) == []
    assert came.wait(60)


def test_an_error_of_the_file_system_is_no_answer(tmp_path: Path) -> None:
    assert answered(10, (tmp_path / "not there").stat) == [None]


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


def test_a_start_does_not_wait_for_the_free_space_of_a_dead_share(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    share_returns = threading.Event()
    request.addfinalizer(share_returns.set)
    monkeypatch.setattr("asi_watch.live.disk._FIRST_LOOK", 0.05)

    def free(_: Path) -> int:
        share_returns.wait(60)
        return 0

    guard = DiskGuard(1, [tmp_path], free)
    guard.start()
    assert guard.low(tmp_path) is None
    guard.stop()
