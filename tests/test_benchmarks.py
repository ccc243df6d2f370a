"""What the benchmarks conclude from what they see; they measure nothing here."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.daemon import Load, schedule
from benchmarks.growth import straight_line, undisturbed
from benchmarks.host import HostReport
from benchmarks.profile import part_of, role, samples


def test_cameras_write_one_after_the_other_or_at_once() -> None:
    spread = schedule(Load(cameras=4, size=1, interval=8.0, brackets=2, settle=0.1))
    assert len(spread) == 4 * 2 * 5
    starts = [step.due for step in spread if step.position == 0]
    assert starts == pytest.approx([0, 2, 4, 6, 8, 10, 12, 14])
    together = schedule(Load(4, 1, 8.0, 2, phase="together", settle=0.1))
    assert sum(step.due == 0 for step in together) == 4
    ends = [step.due for step in together if step.position == 4]
    assert ends == pytest.approx([0.4] * 4 + [8.4] * 4)
    # A bracket never takes longer than half the interval.
    assert max(s.due for s in schedule(Load(1, 1, 1.0, 1, settle=9.0))) == pytest.approx(0.4)


def test_a_bracket_is_quiet_when_the_host_took_nothing_away() -> None:
    report = HostReport(0.0, 100.0, stalls=[(10.0, 10.05)], steals=[(20.0, 20.1, 0.04)])
    assert report.quiet(9.0, 9.9)
    assert not report.quiet(9.95, 10.01)
    assert not report.quiet(10.01, 10.02)
    assert not report.quiet(19.9, 20.2)
    assert report.quiet(20.09, 20.3)  # a tenth of those 40 ms: less than the kernel counts in
    assert report.longest == pytest.approx(0.05)


SCRIPT = """\
 11
\tffff8000 clear_page_erms ([kernel.kallsyms])
\tffff8001 asm_exc_page_fault ([kernel.kallsyms])
\t   c5799 [unknown] (/site-packages/simplejpeg/_jpeg.so)

 11
\t   c5799 [unknown] (/site-packages/simplejpeg/_jpeg.so)

 99
\t   c5799 [unknown] (/site-packages/simplejpeg/_jpeg.so)

 99
\t   23c0 avx512_codes (/hdr/_kernel.abi3.so)

 12
\tffff8003 submit_bio ([kernel.kallsyms])
\tffff8002 __x64_sys_fsync ([kernel.kallsyms])

 12
\t   1000 _PyEval_EvalFrameDefault (/lib/libpython3.11.so.1.0)

 13
\t   1000 _PyEval_EvalFrameDefault (/lib/libpython3.11.so.1.0)
"""


def test_a_sample_is_put_down_to_what_its_thread_did() -> None:
    roles = {11: role("worker-live-0"), 12: role("MainThread"), 13: role("inotify")}
    assert role("scan") == "watch"
    assert role("retention") == "owner"
    assert [part_of(sample, roles) for sample in samples(SCRIPT)] == [
        "memory given fresh by the kernel",
        "decode the exposures",
        "encode the picture",
        "merge",
        "ledger",
        "owner: decide, keep books",
        "watch folders",
    ]


def test_a_line_is_fitted_and_disturbed_bands_do_not_count() -> None:
    line = straight_line({1.0: 5.0, 2.0: 7.0, 3.0: 9.0})
    assert line["slope"] == pytest.approx(2) and line["intercept"] == pytest.approx(3)
    assert line["r2"] == pytest.approx(1) and line["worst"] == pytest.approx(0, abs=1e-9)
    assert undisturbed([np.array([1.0, 9.0]), np.array([8.0, 2.0])]) == 3.0
