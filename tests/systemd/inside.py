"""What is done and looked at inside a booted machine; run there by a unit of its own, as root.

Only the standard library: the machine has Debian's bare Python. Each check builds on the one
before. The results go to ``/ci/results.json``, one entry per check.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

CI = Path("/ci")
SOURCE = Path("/source")
CONFIG = Path("/etc/asi-watch/asi-watch.yaml")
DROP_INS = Path("/etc/systemd/system/asi-watch.service.d")
SERVICE = "asi-watch.service"
ROOF, ROOF_HDR = Path("/srv/asi/roof"), Path("/srv/asi/roof hdr")
HOME, HOME_HDR = Path("/home/cam/pictures"), Path("/home/cam/hdr")
EXPOSURES = (80, 320, 1280)
CONFIG_TEXT = f"""\
cameras:
  roof:
    watch: {ROOF}
    output: {ROOF_HDR}
    bracket: {{round_to: 30s, exposures: {list(EXPOSURES)}, min_exposures: 3, grace: 2s}}
    recalibrate: {{every: never}}
  home:
    watch: {HOME}
    output: {HOME_HDR}
    bracket: {{round_to: 30s, exposures: {list(EXPOSURES)}, min_exposures: 3, grace: 2s}}
    recalibrate: {{every: never}}
"""


def call(*command: str, code: int | None = 0, limit: float = 600) -> str:
    seen = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=limit,
        check=False,
    )
    if code is not None and seen.returncode != code:
        raise AssertionError(
            f"{command} gave {seen.returncode}, not {code}:\n{seen.stdout[-6000:]}"
        )
    return seen.stdout


def show(*names: str) -> list[str]:
    text = call("systemctl", "show", SERVICE, f"--property={','.join(names)}")
    values = dict(line.split("=", 1) for line in text.splitlines())
    return [values[name] for name in names]


def journal(since: float) -> list[dict[str, str]]:
    call("journalctl", "--sync")
    text = call("journalctl", "-u", SERVICE, "-o", "json", f"--since=@{since:.3f}")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def wait_until(what: str, condition: Callable[[], object], limit: float = 60) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            state = show("ActiveState", "SubState", "Result", "NRestarts", "StatusText")
            tail = call("journalctl", "-u", SERVICE, "-n", "30", "-o", "cat", code=None)
            raise AssertionError(f"not within {limit} s: {what}; {state}\n{tail}")
        time.sleep(0.2)


def is_active() -> bool:
    return show("ActiveState", "SubState") == ["active", "running"]


def replaced(pid: str) -> bool:
    # In between, the unit is still active for a moment, without a main process.
    return is_active() and show("MainPID")[0] not in (pid, "0")


def expect(seen: object, wanted: object, what: str) -> None:
    if seen != wanted:
        raise AssertionError(f"{what}: {seen!r}, not {wanted!r}")


def override(name: str, text: str) -> None:
    DROP_INS.mkdir(exist_ok=True)
    (DROP_INS / f"{name}.conf").write_text(text)
    call("systemctl", "daemon-reload")


def expose(folder: Path, slot: datetime) -> str:
    """Let the camera write one bracket; return the name of its product without the suffix."""
    for number, exposure in enumerate(EXPOSURES):
        stamp = slot + timedelta(seconds=number)
        target = folder / f"{stamp:%Y%m%d%H%M%S}_{exposure}.jpg"
        shutil.copy(CI / f"frame{number}.jpg", target)
    return f"{slot:%Y%m%d%H%M%S}_hdr"


def published(folder: Path, name: str) -> list[Path]:
    return sorted(folder.rglob(f"{name}.*"))


def published_soon(folder: Path, name: str) -> Path:
    wait_until(f"{name} in {folder}", lambda: published(folder, name))
    return published(folder, name)[0]


def slot_now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(second=now.second // 30 * 30, microsecond=0)


# --- the checks, in order -----------------------------------------------------------------------


def dry_run_changes_nothing() -> None:
    said = call("/source/systemd/install.sh", "--dry-run")
    for wanted in ("+ make the system account", "+ install the program", "+ put the unit at"):
        assert wanted in said, said
    assert not Path("/opt/asi-watch").exists() and not CONFIG.exists()


def without_a_yes_nothing_happens() -> None:
    call("/source/systemd/install.sh", code=1)
    assert not Path("/opt/asi-watch").exists()


def first_install_waits_for_the_operator() -> None:
    said = call("/source/systemd/install.sh", "--yes")
    assert "Now write your cameras into" in said, said
    expect(show("LoadState", "ActiveState"), ["loaded", "inactive"], "service")
    expect(CONFIG.stat().st_mode & 0o777, 0o640, "mode of the configuration")
    assert "asi-watch" in call("/usr/local/bin/asi-watch", "--version")


def a_wrong_configuration_is_told_and_not_started() -> None:
    CONFIG.write_text("cameras: {roof: {watch: /srv/asi/roof, ouput: /srv/x}}\n")
    said = call("/source/systemd/install.sh", "--yes", code=1)
    assert "ouput" in said, said
    expect(show("ActiveState"), ["inactive"], "service")


def second_install_starts_it() -> None:
    call("/usr/sbin/useradd", "--create-home", "cam")
    Path("/home/cam").chmod(0o700)
    # As operations.md says: not readable for everyone, the service is in the camera's group.
    call("/usr/sbin/usermod", "-aG", "cam", "asi-watch")
    for folder in (ROOF, HOME):
        folder.mkdir(parents=True)
        shutil.chown(folder, "cam", "cam")
        folder.chmod(0o750)
    CONFIG.write_text(CONFIG_TEXT)
    said = call("/source/systemd/install.sh", "--yes")
    assert "WARNING" not in said, said
    # Type=notify: systemctl has come back, so READY=1 was heard from the main process.
    assert is_active(), said
    state, user, restarts = show("Type", "User", "NRestarts")
    expect((state, user, restarts), ("notify", "asi-watch", "0"), "service")
    assert show("StatusText") != [""], "no STATUS was sent"
    call("systemctl", "is-enabled", SERVICE)


def a_third_install_finds_all_in_order() -> None:
    before = CONFIG.read_bytes(), (DROP_INS / "10-camera-folders.conf").read_bytes()
    said = call("/source/systemd/install.sh", "--yes")
    for kept in ("= account asi-watch", "= configuration", "= unit", "= command"):
        assert kept in said, said
    after = CONFIG.read_bytes(), (DROP_INS / "10-camera-folders.conf").read_bytes()
    expect(after, before, "configuration and drop-in")
    assert is_active()


def brackets_become_pictures() -> None:
    slot = slot_now()
    for source, target in ((ROOF, ROOF_HDR), (HOME, HOME_HDR)):
        picture = published_soon(target, expose(source, slot))
        expect((picture.owner(), picture.group()), ("asi-watch", "asi-watch"), "owner")
        expect(picture.stat().st_mode & 0o777, 0o640, f"mode of {picture}")


def the_service_is_locked_in() -> None:
    (pid,) = show("MainPID")
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    for key, wanted in {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16}.items():
        expect(status[key].strip(), wanted, key)
    expect(Path(f"/proc/{pid}").stat().st_uid, uid_of("asi-watch"), "user of the process")
    inside = ("nsenter", "-t", pid, "-m", "--")
    for folder in ("/etc", "/usr", "/srv/asi", "/opt/asi-watch", "/var/lib"):
        said = call(*inside, "touch", f"{folder}/intruder", code=1)
        assert "Read-only file system" in said, said
    # Of the homes it sees the camera's folders and nothing else.
    seen = call(*inside, "ls", "-A", "/home", "/home/cam").split()
    expect(seen, ["/home:", "cam", "/home/cam:", "hdr", "pictures"], "homes")


def uid_of(account: str) -> int:
    return int(call("id", "-u", account))


def the_compiled_merge_runs_without_writable_code() -> None:
    (pid,) = show("MainPID")
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "/asi_watch/hdr/_kernel" in maps, "the kernel was not compiled or not loaded"
    assert "rwxp" not in maps


def the_group_may_ask() -> None:
    call("/usr/sbin/usermod", "-aG", "asi-watch", "cam")
    as_member = ("/usr/sbin/runuser", "-u", "cam", "--", "asi-watch")
    status = json.loads(call(*as_member, "status", "-c", str(CONFIG), "--json"))
    expect(sorted(status["cameras"]), ["home", "roof"], "cameras in the status")
    assert "published" in call("asi-watch", "history", "-c", str(CONFIG))
    # Whoever may look at pictures can hold no lock on what the daemon needs.
    for name in ("ledger.sqlite3", "ledger.sqlite3-shm", "lock"):
        mode = (Path("/var/lib/asi-watch") / name).stat().st_mode & 0o777
        expect(mode, 0o600, f"mode of {name}")
    said = call(
        "/usr/sbin/runuser",
        "-u",
        "nobody",
        "--",
        "asi-watch",
        "status",
        "-c",
        str(CONFIG),
        code=None,
    )
    assert "roof" not in said, said


def the_journal_holds_one_line_per_event() -> None:
    lines = journal(0)
    own = [line for line in lines if line.get("_SYSTEMD_UNIT") == SERVICE]
    assert own, lines[-5:]
    for line in own:
        expect(line["SYSLOG_IDENTIFIER"], "asi-watch", "identifier")
        assert line["MESSAGE"].startswith("level="), line["MESSAGE"]
        wanted = {"debug": "7", "info": "6", "warning": "4", "error": "3"}
        level = line["MESSAGE"].removeprefix("level=").split()[0]
        expect(line["PRIORITY"], wanted[level], "priority")


def reload_keeps_the_process() -> None:
    (pid,) = show("MainPID")
    CONFIG.write_text(CONFIG_TEXT.replace("grace: 2s", "grace: 3s"))
    call("systemctl", "reload", SERVICE)
    published_soon(ROOF_HDR, expose(ROOF, slot_now() - timedelta(minutes=5)))
    expect(show("ActiveState", "MainPID", "NRestarts"), ["active", pid, "0"], "after the reload")


def a_wrong_reload_keeps_the_old_configuration() -> None:
    (pid,) = show("MainPID")
    since = time.time()
    CONFIG.write_text("cameras: 7\n")
    call("systemctl", "reload", SERVICE, code=None)
    wait_until("an error in the journal", lambda: any(e["PRIORITY"] <= "3" for e in journal(since)))
    published_soon(ROOF_HDR, expose(ROOF, slot_now() - timedelta(minutes=10)))
    expect(show("ActiveState", "MainPID"), ["active", pid], "after the wrong reload")
    CONFIG.write_text(CONFIG_TEXT)


def a_killed_daemon_comes_back() -> None:
    override("50-test", "[Service]\nRestartSec=200ms\n")
    (pid,) = show("MainPID")
    call("systemctl", "kill", "--signal=KILL", SERVICE)
    wait_until("a new process", lambda: replaced(pid))
    expect(show("NRestarts"), ["1"], "restarts")


def a_stalled_daemon_is_replaced() -> None:
    override("50-test", "[Service]\nRestartSec=200ms\nWatchdogSec=3s\n")
    call("systemctl", "restart", SERVICE)
    (pid,) = show("MainPID")
    time.sleep(8)
    expect(show("MainPID", "NRestarts"), [pid, "0"], "a healthy daemon feeds its watchdog")
    since = time.time()
    os.kill(int(pid), 19)  # SIGSTOP: alive, and no progress
    wait_until("a new process", lambda: replaced(pid))
    said = "\n".join(str(line["MESSAGE"]) for line in journal(since))
    assert "Watchdog timeout" in said, said
    assert "most recent call first" in said, f"no stacks in the journal:\n{said}"


def stopping_is_clean_and_quick() -> None:
    override("50-test", "")
    call("systemctl", "restart", SERVICE)
    began = time.monotonic()
    call("systemctl", "stop", SERVICE)
    took = time.monotonic() - began
    expect(
        show("ActiveState", "Result", "ExecMainStatus", "ExecMainCode"),
        ["inactive", "success", "0", "1"],
        "after stop",
    )
    assert took < 30, took


def a_wrong_configuration_is_not_tried_again() -> None:
    CONFIG.write_text("cameras: 7\n")
    call("systemctl", "start", SERVICE, code=1)
    time.sleep(1)
    expect(
        show("ActiveState", "ExecMainStatus", "NRestarts"), ["failed", "2", "0"], "after the start"
    )
    CONFIG.write_text(CONFIG_TEXT)


def crashes_at_start_are_tried_again_without_end() -> None:
    override("50-test", "[Service]\nRestartSec=50ms\nExecStart=\nExecStart=/bin/false\n")
    call("systemctl", "reset-failed", SERVICE)
    call("systemctl", "start", SERVICE, code=1)
    wait_until("many starts", lambda: int(show("NRestarts")[0]) > 60)
    (DROP_INS / "50-test.conf").unlink()
    call("systemctl", "daemon-reload")
    wait_until("a start that works", is_active)
    call("/opt/asi-watch/share/asi-watch/install.sh", "--folders", "--yes")
    assert is_active()


def uninstall_leaves_what_is_the_operators() -> None:
    pictures = published(ROOF_HDR, "*")
    call("/opt/asi-watch/share/asi-watch/install.sh", "--uninstall", "--yes")
    expect(show("LoadState", "ActiveState"), ["not-found", "inactive"], "service")
    for gone in (Path("/opt/asi-watch"), DROP_INS, Path("/usr/local/bin/asi-watch")):
        assert not gone.exists() and not gone.is_symlink(), gone
    assert CONFIG.read_text() == CONFIG_TEXT
    assert Path("/var/lib/asi-watch").is_dir()
    expect(published(ROOF_HDR, "*"), pictures, "pictures")
    call("id", "asi-watch")


def purge_leaves_the_pictures() -> None:
    pictures = published(ROOF_HDR, "*")
    own = Path("/var/lib/asi-watch/pictures/mine.jpg")
    own.parent.mkdir()
    own.touch()
    call("/source/systemd/install.sh", "--uninstall", "--purge", "--yes")
    for gone in (CONFIG.parent, Path("/var/cache/asi-watch")):
        assert not gone.exists(), gone
    expect(list(Path("/var/lib/asi-watch").rglob("*")), [own.parent, own], "state folder")
    call("id", "asi-watch", code=1)
    assert pictures
    expect(published(ROOF_HDR, "*"), pictures, "pictures")


CHECKS = (
    dry_run_changes_nothing,
    without_a_yes_nothing_happens,
    first_install_waits_for_the_operator,
    a_wrong_configuration_is_told_and_not_started,
    second_install_starts_it,
    a_third_install_finds_all_in_order,
    brackets_become_pictures,
    the_service_is_locked_in,
    the_compiled_merge_runs_without_writable_code,
    the_group_may_ask,
    the_journal_holds_one_line_per_event,
    reload_keeps_the_process,
    a_wrong_reload_keeps_the_old_configuration,
    a_killed_daemon_comes_back,
    a_stalled_daemon_is_replaced,
    stopping_is_clean_and_quick,
    a_wrong_configuration_is_not_tried_again,
    crashes_at_start_are_tried_again_without_end,
    uninstall_leaves_what_is_the_operators,
    purge_leaves_the_pictures,
)


def main() -> None:
    os.environ |= {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "/wheels",
        "PATH": f"/usr/local/bin:{os.defpath}",
    }
    results: dict[str, str] = {}
    for check in CHECKS:
        began = time.monotonic()
        try:
            check()
            results[check.__name__] = ""
        except (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError):
            results[check.__name__] = traceback.format_exc()
        print(f"{check.__name__}: {time.monotonic() - began:.1f} s", flush=True)
        (CI / "results.json").write_text(json.dumps(results))
    (CI / "journal.txt").write_text(call("journalctl", "-u", SERVICE, "-o", "short-monotonic"))


if __name__ == "__main__":
    main()
