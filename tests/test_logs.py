"""One event is one line, whatever the event holds."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asi_watch.logs import (
    VALUE_LIMIT,
    LineFormatter,
    LogFormat,
    RepeatFilter,
    event,
    failure,
    setup_logging,
)

LOG = logging.getLogger("asi_watch.live.merger")
HOSTILE = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("asi_watch")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level, own.level = before
    root.setLevel(before[1])  # clears the cache of enabled levels
    logging.captureWarnings(False)


def line_of(style: LogFormat = "logfmt", **facts: object) -> str:
    """The facts as they are written, without the head."""
    record = logging.LogRecord("x", logging.INFO, "", 0, "m", None, None)
    record.asi_watch_facts = facts
    line = LineFormatter(style, journal=True).format(record)
    if style == "logfmt":
        return line.removeprefix("<6>level=info logger=x msg=m ")
    return line.removeprefix("<6>")


def logfmt_values(line: str) -> dict[str, str]:
    """Read logfmt: in quotes a backslash escapes, elsewhere it is one."""
    values = {}
    for key, quoted, bare in re.findall(r'(\S+?)=(?:"((?:[^"\\]|\\.)*)"|(\S*))', line):
        values[key] = re.sub(r"\\(.)", r"\1", quoted) if quoted else bare
    return values


def logged(style: LogFormat = "logfmt", **setup: object) -> io.StringIO:
    stream = io.StringIO()
    setup_logging(style=style, stream=stream, **setup)  # type: ignore[arg-type]
    return stream


def test_a_line_is_sentence_and_facts() -> None:
    stream = logged()
    event(
        LOG, logging.INFO, "bracket published", camera="roof", exposures=5, took=0.062, curve=None
    )
    stamp, rest = stream.getvalue().split(" ", 1)
    assert datetime.fromisoformat(stamp.removeprefix("time=")).tzinfo == UTC
    assert rest == (
        'level=info logger=live.merger msg="bracket published" camera=roof exposures=5 took=0.062\n'
    )


def test_values_are_written_as_people_write_them() -> None:
    facts = {
        "slot": datetime(2026, 5, 4, 12, 0, 30),
        "grace": timedelta(seconds=2.5),
        "complete": True,
        "path": Path("/srv/asi/a b.jpg"),
        "raw": b"\xff.jpg",
        "times": [80.0, 160.0],
        "mean": np.float32(0.5),
        "count": np.int64(3),
        "empty": "",
    }
    assert line_of(**facts) == (
        'slot=2026-05-04T12:00:30 grace=2.5s complete=true path="/srv/asi/a b.jpg" '
        "raw=\\xff.jpg times=80,160 mean=0.5 count=3 empty="
    )


@given(name=HOSTILE, style=st.sampled_from(["logfmt", "json"]))
def test_no_name_can_forge_a_line(name: str, style: LogFormat) -> None:
    record = logging.LogRecord("asi_watch", logging.INFO, "", 0, name, None, None)
    record.asi_watch_facts = {name: 1, "path": name, "list": [name]}
    line = LineFormatter(style).format(record)
    assert line.isprintable()
    line.encode("utf-8")
    assert len(line.splitlines()) == 1


@given(value=st.text(st.characters(codec="utf-8"), max_size=60))
def test_json_gives_back_what_went_in(value: str) -> None:
    read = json.loads(line_of("json", path=value, n=3))
    assert (read["path"], read["n"]) == (value, 3)


@given(value=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_logfmt_gives_back_what_went_in(value: str) -> None:
    assert logfmt_values(line_of(a=value, b="end")) == {"a": value, "b": "end"}


def test_undecodable_names_show_their_bytes() -> None:
    assert line_of(p=os.fsdecode(b"a\xffb")) == r"p=a\xffb"
    assert line_of(p="a\x80\x1b[2J\u202e") == r"p=a\x80\x1b[2J\u202e"


def test_long_values_are_cut_in_the_middle() -> None:
    line = line_of(p="head" + "x" * 10 * VALUE_LIMIT + "tail")
    assert line.startswith('p="head') and line.endswith('tail"')
    assert len(line) < VALUE_LIMIT + 20


def test_json_has_no_lone_surrogates() -> None:
    # Strict parsers refuse them.
    line = line_of(
        "json", **{os.fsdecode(b"k\xff"): os.fsdecode(b"a\xffb"), "m": {"\udc80": ["\udc80"]}}
    )
    json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_json_has_no_nan(bad: float) -> None:
    read = json.loads(line_of("json", v=bad, list=[bad]))
    assert (read["v"], read["list"]) == (str(bad), [str(bad)])


def test_facts_cannot_replace_the_head() -> None:
    stream = logged("json")
    event(LOG, logging.INFO, "started", level="loud", msg="other", logger="me")
    line = json.loads(stream.getvalue())
    assert (line["level"], line["msg"], line["logger"]) == ("info", "started", "live.merger")
    assert (line["level_"], line["msg_"], line["logger_"]) == ("loud", "other", "me")


def test_a_failure_is_one_line_with_its_traceback() -> None:
    stream = logged()
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        failure(LOG, "merge failed", error, camera="roof")
    (line,) = stream.getvalue().splitlines()
    assert 'camera=roof error="ValueError: first\\nsecond" traceback="Traceback' in line
    assert "test_a_failure_is_one_line" in line


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)],
)
def test_the_journal_gets_the_priority_and_no_time(level: int, priority: int) -> None:
    stream = logged(journal=True)
    event(LOG, level, "said")
    assert stream.getvalue().startswith(f"<{priority}>level=")


def test_the_journal_is_known_by_device_and_inode(tmp_path: Path) -> None:
    code = (
        "import logging; from asi_watch.logs import setup_logging, event; setup_logging();"
        "event(logging.getLogger('asi_watch'), logging.WARNING, 'said')"
    )
    target = tmp_path / "journal"
    with target.open("w") as stream:
        stat = os.fstat(stream.fileno())
        for inode in (stat.st_ino, stat.st_ino + 1):
            env = {**os.environ, "JOURNAL_STREAM": f"{stat.st_dev}:{inode}"}
            subprocess.run([sys.executable, "-c", code], stderr=stream, env=env, check=True)
    ours, inherited = target.read_text().splitlines()
    assert ours == "<4>level=warning logger=asi_watch msg=said"
    assert inherited.startswith("time=")


def test_setting_up_again_replaces_and_keeps_strangers() -> None:
    stranger = logging.NullHandler()
    logging.getLogger().addHandler(stranger)
    first, second = logged(), logged()
    event(LOG, logging.INFO, "said")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
    assert stranger in logging.getLogger().handlers


def test_other_packages_need_a_warning() -> None:
    stream = logged(level="debug")
    logging.getLogger("matplotlib").info("font cache")
    logging.getLogger("watchdog.observers.inotify_c").warning("queue overflow")
    event(LOG, logging.DEBUG, "tick")
    assert [line.split("msg=")[1] for line in stream.getvalue().splitlines()] == [
        '"queue overflow"',
        "tick",
    ]


def test_a_wrong_template_still_gives_a_line() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%d files", ("many",), None)
    assert LineFormatter().format(record).endswith("""msg="%d files ('many',)\"""")


def test_repetitions_are_held_back_and_counted() -> None:
    now = [0.0]
    held = RepeatFilter(burst=2, window=timedelta(seconds=10), clock=lambda: now[0])
    stream = logged(repeats=held)
    for _ in range(5):
        event(LOG, logging.WARNING, "cannot decode", camera="roof")
    event(LOG, logging.WARNING, "cannot decode", camera="mast")
    assert stream.getvalue().count("camera=roof") == 2
    assert stream.getvalue().count("camera=mast") == 1
    now[0] = 10.0
    event(LOG, logging.WARNING, "cannot decode", camera="roof")
    assert stream.getvalue().splitlines()[-1].endswith("camera=roof suppressed=3")


def test_the_filter_remembers_a_bounded_number_of_kinds() -> None:
    held = RepeatFilter(burst=1, clock=lambda: 0.0)
    logged(repeats=held)
    for number in range(5000):
        event(LOG, logging.WARNING, "cannot decode", camera=str(number))
    assert len(held._seen) <= 1024
