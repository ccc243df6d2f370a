"""Whether a new curve may replace the present one: the job of a calibration's own process.

A process, so that calibrating takes no memory from the daemon for good, runs at low priority,
and cannot take the daemon down. Request and verdict are plain values.

A curve may only be replaced on evidence: brackets spread over hours, that agree with each other
whichever half of them is looked at, cover the codes, and are predicted better by a candidate that
did not see them than by the present curve. Where they tell less, a camera without a curve gets a
provisional one, and another keeps what it has. A candidate far from a curve that is not
provisional looks like another camera, or false exposure times: it must come again on another day.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from asi_watch.calibrate_brackets import (
    BracketFiles,
    CalibratedCurve,
    CalibrationChoices,
    calibrate_brackets,
)
from asi_watch.errors import ResponseFileError
from asi_watch.files import counted, shown
from asi_watch.hdr.calibration import calibrate_response, evidence, response_residual
from asi_watch.hdr.response import ResponseCurve, curve_drift, on_scale_of
from asi_watch.hdr.tone import ToneScale
from asi_watch.plots import save_calibration_report_plot
from asi_watch.products import OutputFolder
from asi_watch.response_files import load_curve, response_bytes

_SAMPLES_PER_BRACKET = 5000
# What replaces a curve is made from at least so many brackets, the first and last so far apart,
# and covers so many of the codes in every channel.
FEWEST_BRACKETS = 6
_SPAN = timedelta(hours=2)
_FEWEST_CODES = 200
# A first curve that leaves more than this unexplained describes no camera: good sets leave
# 0.05 … 0.25 stops, sets with false exposure times 1.0 … 1.2.
_IMPOSSIBLE_RESIDUAL = 0.5
_WORST_RESIDUAL = 0.15  # stops, of a sound one
_HALVES = 0.03  # stops between the curves of the earlier and the later half
# Stops per stop of exposure by which the light of a bracket may change, against the median; in how
# many brackets it may change more; and how far the median of all may be uncertain.
_LIGHT, _STEADY_SHARE, _LIGHT_ERROR = 0.03, 0.7, 0.012
_BETTER_SHARE = 0.75  # of the brackets, that must be predicted better
_SAME, _FAR = 0.006, 0.05  # stops from the present curve: no change; another camera
# So near must a candidate be that leaves so much more unexplained than the present curve did when
# it was adopted; what is less than the least is noise.
_NEAR, _WORSE, _LEAST_RESIDUAL = 0.015, 1.5, 0.012
_AGAIN_AFTER = timedelta(hours=18)
_AGREES = 0.03  # stops, of a candidate and one of another day
_FEW_CODES = 15


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """What a camera's curve is to be calibrated from."""

    camera: str
    brackets: tuple[BracketFiles, ...]  # to choose from, newest first; names are slots
    folder: str  # where the candidate's file goes
    # Files of the curves in use; the one of the candidate's channels is compared with it.
    present: tuple[str, ...] = ()
    channels: int | None = None  # of the brackets to use; None: of most of them
    most_brackets: int = 10  # to use
    low_clip: int = 5
    high_clip: int = 250
    sky_disc: Literal["auto"] | tuple[float, float, float] | None = "auto"
    manual: bool = False  # asked for by an operator: the report is drawn whatever the verdict


@dataclass(frozen=True, slots=True)
class CalibrationVerdict:
    """What became of a request."""

    accepted: bool
    reason: str  # one clause for the log and the ledger
    curve_id: str  # the candidate, and its file if it was accepted
    path: str
    channels: int
    # In stops, of the candidate and of the present curve on the same samples; None without one.
    residual: float
    present_residual: float | None
    brackets: int  # how many were used
    passed_over: tuple[str, ...] = ()  # brackets and exposures that could not be used, and why
    coverage: int | None = None  # codes that samples told of, in the worst channel
    drift: float | None = None  # stops from the present curve
    provisional: bool = False  # better than none, to be replaced as soon as may be
    unchanged: bool = False  # not accepted, since it is the present curve within the noise
    plot: str | None = None  # file of the report's drawing


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the brackets of a candidate tell, in figures."""

    first_slot: str
    last_slot: str
    brackets: int
    coverage: int  # codes, in the worst channel
    residual: float  # stops
    halves: float  # stops between the curves of the earlier and the later half
    steady: float  # share of brackets whose light did not change
    light_error: float  # stops per stop, of the median change of light, worst channel
    false_times: int  # exposures whose stated time cannot be true, or is doubted

    @classmethod
    def of(cls, curve: ResponseCurve) -> "_Evidence | None":
        """Read what a curve of ours was adopted for; None of any other."""
        try:
            return _ADAPTER.validate_python(curve.metadata.get("evidence"))
        except ValidationError:
            return None

    def lacks(self) -> tuple[str, ...]:
        """Say what is missing for a curve that replaces another."""
        span = (_slot(self.last_slot) - _slot(self.first_slot)) / timedelta(hours=1)
        least = _SPAN / timedelta(hours=1)
        checks = (
            (self.brackets < FEWEST_BRACKETS, f"{counted(self.brackets, 'bracket')} alone"),
            (span < least, f"its brackets span {span:.1f} h (at least {least:g})"),
            (self.coverage < _FEWEST_CODES, f"it covers {self.coverage} of 246 codes"),
            (
                not self.residual <= _WORST_RESIDUAL,
                f"it leaves {self.residual:.3f} stops unexplained (limit {_WORST_RESIDUAL})",
            ),
            (
                not self.halves <= _HALVES,
                f"its earlier and later brackets disagree by {self.halves:.3f} stops"
                f" (limit {_HALVES})",
            ),
            (
                self.steady < _STEADY_SHARE or not self.light_error <= _LIGHT_ERROR,
                f"the light, gain or white balance changed within brackets: {self.steady:.0%} are"
                f" steady, ± {self.light_error:.3f} stops per stop of exposure",
            ),
            (self.false_times > 0, "exposure times contradict the images"),
        )
        return tuple(text for missing, text in checks if missing)


_ADAPTER = TypeAdapter(_Evidence)


def calibrate_candidate(request: CalibrationRequest) -> CalibrationVerdict:
    """Calibrate from the request's brackets and judge the candidate against the present curve.

    Parameters
    ----------
    request : CalibrationRequest
        AsiWatchError if no candidate could be computed from it, or its file not be written.
    """
    choices = CalibrationChoices(
        samples_per_image=_SAMPLES_PER_BRACKET,
        sample_technique="flat",
        max_processed_groups=max(request.most_brackets, FEWEST_BRACKETS),
        low_clip=request.low_clip,
        high_clip=request.high_clip,
        seed=0,
        sky_disc=request.sky_disc,
    )
    done = calibrate_brackets(
        _spread(request.brackets),
        choices,
        where=shown(request.camera),
        channels=request.channels,
        in_order=True,
    )
    return _Candidate(request, done).verdict()


def _spread(brackets: Sequence[BracketFiles]) -> list[BracketFiles]:
    """Order brackets so that any number of the first ones is spread over the whole time."""
    rising = sorted(brackets, key=lambda bracket: bracket.name)
    count = len(rising)
    # The golden ratio's multiples are spread evenly, however many are taken; the newest is first.
    places = [(1 - 0.618033988749895 * k) % 1.0 * count for k in range(4 * count)]
    order = dict.fromkeys([count - 1, *(int(place) for place in places), *range(count)])
    return [rising[place] for place in order if 0 <= place < count]


def _slot(name: str) -> datetime:
    """Read a bracket's slot; brackets without one are of one time."""
    try:
        return datetime.fromisoformat(name).replace(tzinfo=None)
    except ValueError:
        return datetime(1, 1, 1)


class _Candidate:
    """A candidate, what speaks for it, and the curve that it may replace."""

    def __init__(self, request: CalibrationRequest, done: CalibratedCurve) -> None:
        self._request, self._done = request, done
        # The camera may be white below the high clip that is asked for.
        self._clips = done.choices.low_clip, done.choices.high_clip
        by_time = sorted(range(len(done.used)), key=lambda n: done.used[n].name)
        self._earlier = by_time[: len(by_time) // 2]
        self._later = by_time[len(by_time) // 2 :]
        self._g = np.asarray(done.calibration.log_response)
        self._present = self._load_present()
        self._covered = evidence.covered_codes(done.samples, self._clips)
        self._fold_curves = self._solve_halves()
        self._evidence = self._gather()

    def _load_present(self) -> ResponseCurve | None:
        for path in self._request.present:
            curve = load_curve(path)
            if curve.channels == self._g.shape[1]:
                return curve
        return None

    def _solve_halves(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Solve the earlier and the later brackets alone; None where one half gives no curve."""
        choices, found = self._done.choices, []
        for half in (self._earlier, self._later):
            if len(half) < 2:
                return None
            try:
                calibration = calibrate_response(
                    [self._done.samples[n] for n in half],
                    low_clip=choices.low_clip,
                    high_clip=choices.high_clip,
                )
            except ValueError:
                return None
            found.append(calibration.log_response)
        return found[0], found[1]

    def _gather(self) -> _Evidence:
        done, report = self._done, self._done.calibration.report
        changes = evidence.light_changes(self._g, done.samples, self._clips)
        middle = np.nanmedian(changes, axis=0) if changes.size else np.zeros(1)
        off = np.nan_to_num(np.abs(changes - middle), nan=np.inf)
        halves = float("inf")
        if self._fold_curves is not None:
            both = np.logical_and(
                *(
                    evidence.covered_codes([done.samples[n] for n in half], self._clips)
                    for half in (self._earlier, self._later)
                )
            )
            halves = evidence.stops_between(*self._fold_curves, both)
        names = [done.used[n].name for n in (*self._earlier, *self._later)]
        return _Evidence(
            first_slot=names[0],
            last_slot=names[-1],
            brackets=len(done.used),
            coverage=int(self._covered[self._clips[0] : 251].sum(axis=0).min()),
            residual=max((v for v in report.residual_stops if np.isfinite(v)), default=np.inf),
            halves=round(halves, 5),
            steady=round(float((off.max(axis=1) <= _LIGHT).mean()), 3),
            # Of a median: 1.253 × the standard deviation over √n.
            light_error=round(
                float(1.8577 * np.median(off, axis=0).max() / np.sqrt(len(done.used))), 5
            ),
            false_times=len(report.suspected_times) + len(report.time_doubts),
        )

    def verdict(self) -> CalibrationVerdict:
        """Decide, and write the candidate's file if it is accepted or must come again."""
        lacks = self._evidence.lacks()
        if self._present is None:
            outcome, reason = self._first(lacks)
        elif self._present.provisional:
            outcome, reason = self._after_provisional(self._present, lacks)
        else:
            outcome, reason = self._replacing(self._present, lacks)
        return self._told(outcome, reason, provisional=outcome == "accepted" and bool(lacks))

    def _first(self, lacks: tuple[str, ...]) -> tuple[str, str]:
        found = self._evidence
        report = self._done.calibration.report
        if not found.residual <= _IMPOSSIBLE_RESIDUAL or report.time_doubts:
            text = f"it leaves {found.residual:.3f} stops unexplained"
            return "rejected", report.warnings[0] if report.warnings else text
        text = f"first curve, residual {found.residual:.4f} stops, {found.coverage} codes"
        return "accepted", f"{text}; provisional: {'; '.join(lacks)}" if lacks else text

    def _after_provisional(self, present: ResponseCurve, lacks: tuple[str, ...]) -> tuple[str, str]:
        """Replace a provisional curve by any that stands on more."""
        first, reason = self._first(lacks)
        if first == "rejected" or not lacks:
            return first, reason.replace("first curve", "in place of a provisional curve")
        before, now = _Evidence.of(present), self._evidence
        lacked = len(before.lacks()) + 1 if before else 99
        more = now.coverage - before.coverage if before else 0
        if len(lacks) < lacked - 1 - (more < -_FEW_CODES) or (
            len(lacks) < lacked and more > _FEW_CODES
        ):
            return "accepted", reason.replace("first curve", "better than the provisional curve")
        return "unchanged", f"the provisional curve is kept: {'; '.join(lacks)}"

    def _replacing(self, present: ResponseCurve, lacks: tuple[str, ...]) -> tuple[str, str]:
        """Replace a sound curve only by a better one that is near it, or that comes again."""
        self._g = evidence.completed(self._g, present.log_response, self._covered)
        drift = evidence.stops_between(self._g, present.log_response)
        if lacks:
            return "rejected", "; ".join(lacks)
        share = self._share_predicted_better(present)
        facts = (
            f"{drift:.4f} stops from the present curve, {share:.0%} of brackets predicted better"
        )
        far = _FAR
        if drift < _SAME:
            return "unchanged", facts
        if share < _BETTER_SHARE:
            return "unchanged", f"{facts} (at least {_BETTER_SHARE:.0%})"
        before, residual = _Evidence.of(present), self._evidence.residual
        if before is not None and residual > _WORSE * max(before.residual, _LEAST_RESIDUAL):
            far = _NEAR
            facts += f", {residual:.4f} stops unexplained where it left {before.residual:.4f}"
        if drift <= far:
            return "accepted", facts
        if self._request.manual:
            return "accepted", f"{facts}; asked for by the operator"
        days = self._days_waited()
        # A curve that was adopted on evidence is not given up as easily as a file of any origin.
        if len(days) > (2 if before else 1):
            return "accepted", f"{facts}; so said the brackets of {len(days)} days"
        return "again", f"{facts}: another camera, or false times; other days must tell the same"

    def _share_predicted_better(self, present: ResponseCurve) -> float:
        """Share of the brackets that the curve of the *other* half predicts better."""
        assert self._fold_curves is not None  # without halves nothing gets here
        wins = []
        for half, fold in zip((self._earlier, self._later), self._fold_curves[::-1], strict=True):
            samples = [self._done.samples[n] for n in half]
            old, new = (
                evidence.prediction_losses(g, samples, self._clips)
                for g in (present.log_response, fold)
            )
            wins += list(new < old)
        return float(np.mean(wins))

    @property
    def _waiting(self) -> Path:
        """File of a candidate that must come again on another day."""
        return Path(self._request.folder) / f"waiting-{self._g.shape[1]}.npz"

    def _days_waited(self) -> list[str]:
        """Return the last slots of candidates of different days that agree, this one included."""
        now = self._evidence.last_slot
        try:
            waiting = load_curve(self._waiting)
        except ResponseFileError:
            return [now]
        days = [str(day) for day in waiting.metadata.get("days", [])]
        if not days or evidence.stops_between(self._g, waiting.log_response) > _AGREES:
            return [now]
        another_day = _slot(now) - _slot(days[-1]) >= _AGAIN_AFTER
        return [*days, now] if another_day else days

    def _told(self, outcome: str, reason: str, *, provisional: bool) -> CalibrationVerdict:
        done, present, request = self._done, self._present, self._request
        curve = self._curve(provisional)
        accepted = outcome == "accepted"
        path = Path(request.folder) / f"{curve.curve_id}.npz"
        folder = OutputFolder(path.parent)
        if accepted:
            folder.publish(response_bytes(curve.log_response, curve.metadata), path.name)
            self._waiting.unlink(missing_ok=True)
        elif outcome == "again":
            metadata = {**curve.metadata, "days": self._days_waited()}
            folder.publish(response_bytes(curve.log_response, metadata), self._waiting.name)
        plot = None
        if accepted or request.manual:
            plot = path.with_suffix(".png")
            title = f"{shown(request.camera)} · {datetime.now(UTC):%Y-%m-%d}"
            save_calibration_report_plot(done.calibration, plot, title=title)
        residual = None
        if present is not None:
            residual = round(response_residual(present.log_response, done.samples), 5)
        return CalibrationVerdict(
            accepted=accepted,
            reason=reason,
            curve_id=curve.curve_id,
            path=str(path),
            channels=curve.channels,
            residual=round(self._evidence.residual, 5),
            present_residual=residual,
            brackets=len(done.used),
            passed_over=done.rejected + done.left_out,
            coverage=self._evidence.coverage,
            drift=None if present is None else round(curve_drift(curve, present), 5),
            provisional=provisional,
            unchanged=outcome == "unchanged",
            plot=None if plot is None else str(plot),
        )

    def _curve(self, provisional: bool) -> ResponseCurve:
        """Give the candidate on the scale of the present curve, with what it stands on."""
        done, present = self._done, self._present
        where = shown(str(Path(done.used[0].paths[0]).parent))
        made = done.curve(where, evidence=asdict(self._evidence), provisional=provisional)
        curve = ResponseCurve(self._g, made.metadata)
        if present is None:
            return curve
        curve = on_scale_of(curve, present)
        before, now = (done.tone_scale(c.log_response) for c in (present, curve))
        if before is None or now is None:
            return curve
        if present.tone_scale is not None and not present.provisional:
            # Pictures stay as bright as they are, whatever brackets the new curve is made of.
            now = ToneScale(*present.tone_scale).carried(ToneScale(*before), ToneScale(*now))
        return ResponseCurve(curve.log_response, {**curve.metadata, "tone_scale": list(now)})
