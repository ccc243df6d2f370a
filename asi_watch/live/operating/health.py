"""What the daemon says of itself: numbers gathered by the owner thread, read by `status`."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from asi_watch.live.records import BracketRecord

_RECENT = 200
# A slot that is not surpassed for so long was that of a clock gone wrong.
_NEWEST_FOR = 3600.0


@dataclass(slots=True)
class CameraHealth:
    """Recent life of one camera."""

    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    last: dict[str, Any] | None = None
    last_error: dict[str, str] | None = None
    _since: float = field(default_factory=time.monotonic)
    _last_slot: datetime | None = None
    _last_at: float = float("-inf")

    def bracket_over(self, record: BracketRecord, now: float) -> None:
        """Take note of a bracket's row; `now` is the monotonic time."""
        # The newest, not the one worked at last: that may be one of a backlog, or a retry.
        newest = self._last_slot is None or record.slot >= self._last_slot
        if newest or now > self._last_at + _NEWEST_FOR:
            self._last_slot, self._last_at = record.slot, now
            self.last = _shown(record)
        if _is_live(record, now - self._since):
            assert record.latency is not None
            self.latencies.append(record.latency)
        if record.state != "published":
            self.error(f"bracket {record.slot:%Y-%m-%d %H:%M:%S} {record.state}: {record.reason}")

    def error(self, text: str) -> None:
        """Remember the latest thing that went wrong."""
        self.last_error = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "what": text}

    def latency(self) -> dict[str, float] | None:
        """Percentiles of the recent latencies in seconds, None before the first."""
        if not self.latencies:
            return None
        p50, p95, worst = np.percentile(self.latencies, [50, 95, 100])
        return {"p50": round(p50, 3), "p95": round(p95, 3), "max": round(worst, 3)}


def _is_live(record: BracketRecord, uptime: float) -> bool:
    """Tell whether a bracket became whole under the daemon's eyes and was published just now."""
    first = record.state == "published" and record.revision == 1
    return first and record.latency is not None and record.latency < uptime


def _shown(record: BracketRecord) -> dict[str, Any]:
    return {
        "slot": record.slot.isoformat(),
        "state": record.state,
        "complete": record.complete,
        "exposures": len(record.inputs),
        "latency": record.latency,
        "products": list(record.products),
    }
