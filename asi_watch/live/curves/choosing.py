"""The operator's response file: what it offers, what is wrong with it, when it is tried again."""

from __future__ import annotations

import logging

from asi_watch.config.model import CameraConfig
from asi_watch.live.curves.curves import CurveChoice, CurveInUse, choose_curve, look_of
from asi_watch.live.ledger.ledger import Ledger
from asi_watch.logs import event

log = logging.getLogger(__name__)

_LOOK_EVERY = 2.0
_LOOK_AT_DEAD_EVERY = 600.0


class CurveChooser:
    """Chooses among the operator's file and what was adopted, as long as that is open.

    Parameters
    ----------
    camera : str
    rules : CameraConfig
    ledger : Ledger
    now : float
        Monotonic time.
    """

    def __init__(self, camera: str, rules: CameraConfig, ledger: Ledger, now: float) -> None:
        self._camera = camera
        self._rules = rules
        self._ledger = ledger
        self._choice = CurveChoice(None)
        self._seen: object = None
        self._untold: str | None = None
        self._channels: int | None = None
        self._looked = now

    @property
    def fault(self) -> str | None:
        """What is wrong with the operator's file, None if nothing is."""
        return self._choice.fault

    @property
    def why_not(self) -> str | None:
        """Why the operator's file is not in use: its fault, or that it is not there."""
        if self._choice.fault or not self._choice.missing:
            return self._choice.fault
        return f"{self._rules.response} is not there"

    def take_fault(self) -> str | None:
        """Return what is wrong with the operator's file, once; None if nothing new is."""
        untold, self._untold = self._untold, None
        return untold

    def choose(self) -> CurveInUse | None:
        """Choose, from the files as they are now."""
        response = self._rules.response
        # Before it is read: what is put there meanwhile is seen the next time.
        self._seen = None if response is None else look_of(response)
        self._choice = choose_curve(self._camera, self._rules, self._ledger)
        if self._choice.fault:
            self._untold = f"response file not used: {self._choice.fault}"
        self._refuse_other_channels()
        return self._choice.in_use

    def look_again(self, now: float) -> CurveInUse | None:
        """Try a file again that was missing or at fault, once it looks different.

        Returns
        -------
        CurveInUse or None
            The operator's curve; None as long as there is nothing better than before.
        """
        if now - self._looked <= _LOOK_EVERY:
            return None
        self._looked = now
        response = self._rules.response
        if response is None or self.why_not is None:
            return None
        seen = look_of(response)
        if seen is None:
            # Each look at a dead share costs a thread.
            self._looked = now + _LOOK_AT_DEAD_EVERY
        if seen is None or seen == self._seen:
            return None
        better = self.choose()
        return better if self.why_not is None else None

    def expect_channels(self, channels: int) -> None:
        """Refuse curves with another number of channels than the camera's images have."""
        self._channels = channels
        self._refuse_other_channels()

    def _refuse_other_channels(self) -> None:
        chosen, channels = self._choice.in_use, self._channels
        if chosen is None or channels is None or chosen.curve.channels == channels:
            return
        fault = (
            f"{chosen.path}: has {chosen.curve.channels} channels, the camera's images {channels};"
            " restart the daemon if the images are others now"
        )
        event(log, logging.ERROR, "response file not used", camera=self._camera, reason=fault)
        self._choice = CurveChoice(None, fault=fault)
        self._untold = f"response file not used: {fault}"
