"""The ledger: one durable row per bracket that is over, one per curve a camera has used.

Only the daemon's owner thread writes, commands read; a row is on the disk when `record` returns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack

from asi_watch.live.ledger.curve_rows import CurveRows, utc_now
from asi_watch.live.ledger.ledger_file import FILE_NAME
from asi_watch.live.ledger.ledger_rows import COLUMNS, from_row, to_row
from asi_watch.live.ledger.ledger_schema import (
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
)
from asi_watch.live.records import WITHOUT_CURVE, BracketRecord, CurveDecision

__all__ = [
    "FILE_NAME",
    "CurveDecision",
    "Ledger",
    "LedgerDamagedError",
    "LedgerError",
    "LedgerFullError",
    "Which",
]

_NAMES = ", ".join(COLUMNS)
_NEWEST = 200
_NEVER = 1 << 30


class Which(TypedDict):
    """Brackets to be tried again, see `Ledger.ask_again`."""

    failed: bool
    skipped: bool
    published: NotRequired[bool]
    since: NotRequired[datetime | None]
    until: NotRequired[datetime | None]


class Ledger(CurveRows):
    """The rows, through the daemon's own connection or a reader's (see `LedgerFile`)."""

    def __init__(self, state_dir: Path, *, read_only: bool = False) -> None:
        self._totals: dict[str, Counter[str]] = {}
        super().__init__(state_dir, read_only=read_only)

    # -- brackets ---------------------------------------------------------------------------

    def get(self, camera: str, slot: datetime) -> BracketRecord | None:
        """Look up the row of one bracket."""
        rows = self._select("WHERE camera = ? AND slot = ?", (camera, slot.isoformat()))
        return next(rows, None)

    def record(self, record: BracketRecord) -> None:
        """Write or replace a bracket's row, durably."""
        counted = dict(self._totals)
        totals = counted.get(record.camera)
        before = None if totals is None else self._state(record.camera, record.slot)
        self.record_all([replace(record, updated_utc=utc_now())])
        if totals is not None:
            totals[record.state] += 1
            if before is not None:
                totals[before] -= 1
        self._totals = counted

    def record_all(self, records: Iterable[BracketRecord]) -> None:
        """Write rows as they are, with the times they were last changed at, all or none."""
        self._totals.clear()
        rows = [to_row(record) for record in records]
        marks = ", ".join("?" * len(COLUMNS))
        with self._transaction():
            self._db.executemany(
                f"INSERT OR REPLACE INTO brackets ({_NAMES}) VALUES ({marks})", rows
            )

    def to_retry(
        self,
        camera: str,
        max_attempts: int,
        *,
        after: datetime | None = None,
        limit: int | None = None,
    ) -> list[BracketRecord]:
        """Brackets of a camera to try again: failed with attempts left, or asked for.

        Parameters
        ----------
        camera : str
        max_attempts : int
        after : datetime or None
            Only slots after this one.
        limit : int or None
            The first so many in the order of their slots.
        """
        since = "" if after is None else after.isoformat()
        # The planner alone would go through all rows of the camera, at every start.
        table, of_camera = "SELECT slot FROM brackets INDEXED BY", "WHERE camera = ?1 AND slot > ?2"
        failed = f"{table} brackets_by_state {of_camera} AND state = 'failed'"
        asked = f"{table} brackets_asked {of_camera} AND asked = 1"
        return list(
            self._select(
                f"WHERE camera = ?1 AND slot IN ({failed} AND attempts < ?3 UNION ALL {asked})"
                " ORDER BY slot LIMIT ?4",
                (camera, since, max_attempts, -1 if limit is None else limit),
            )
        )

    def ask_again(
        self, camera: str, *, slots: Sequence[datetime] = (), **which: Unpack[Which]
    ) -> list[datetime]:
        """Mark brackets as to be tried again.

        Parameters
        ----------
        camera : str
        slots : sequence of datetime
            These, whatever their state; published ones only if `published`.
        **which : Which
            `failed`, `skipped`: all brackets of the state. `published`: the same of a span of
            time, and what is published among `slots`. `since`, `until`: of these states, only
            slots from the one on and before the other.

        Returns
        -------
        list of datetime
            The slots that were marked.
        """
        since, until = which.get("since"), which.get("until")
        span = ("" if since is None else since.isoformat(), until.isoformat() if until else "~")
        published = which.get("published", False)
        states = [s for s in ("failed", "skipped") if which[s]]
        states += ["published"] * (published and (since or until) is not None)
        update = "UPDATE brackets SET asked = 1, attempts = 0 WHERE camera = ? AND "
        marked: list[str] = []
        with self._transaction():
            for state in states:
                found = "state = ? AND slot >= ? AND slot < ? RETURNING slot"
                marked += [s for (s,) in self._db.execute(update + found, (camera, state, *span))]
            for slot in slots:
                found = "slot = ? AND (state != 'published' OR ?) RETURNING slot"
                values = (camera, slot.isoformat(), published)
                marked += [s for (s,) in self._db.execute(update + found, values)]
        return sorted({datetime.fromisoformat(slot) for slot in marked})

    def ask_makeshifts(self, camera: str, since: datetime) -> int:
        """Mark what was published without a curve, after a UTC time, as to be merged again.

        Returns
        -------
        int
            How many brackets.
        """
        with self._transaction():
            return self._db.execute(
                "UPDATE brackets SET asked = 1, attempts = 0 WHERE camera = ? AND updated_utc >= ?"
                " AND state = 'published' AND reason = ?",
                (camera, since.isoformat(timespec="milliseconds"), WITHOUT_CURVE),
            ).rowcount

    def recent_complete(self, camera: str, limit: int) -> list[BracketRecord]:
        """Newest published complete brackets of a camera, newest first."""
        return list(
            self._select(
                "WHERE camera = ? AND state = 'published' AND complete = 1"
                " ORDER BY slot DESC LIMIT ?",
                (camera, limit),
            )
        )

    def finished(
        self, camera: str, *, after: datetime | None = None, limit: int
    ) -> list[BracketRecord]:
        """Brackets of a camera that nothing is to be done for, in the order of their slots.

        Parameters
        ----------
        camera : str
        after : datetime or None
            Only slots after this one.
        limit : int
            The first so many.
        """
        since = "" if after is None else after.isoformat()
        return list(
            self._select(
                "WHERE camera = ? AND slot > ? AND state != 'failed' AND asked = 0"
                " ORDER BY slot LIMIT ?",
                (camera, since, limit),
            )
        )

    def history(
        self, *, camera: str | None = None, since: datetime | None = None, limit: int | None = None
    ) -> list[BracketRecord]:
        """Rows of the ledger in the order of their slots, the newest `limit` of them."""
        cameras = self.cameras() if camera is None else [camera]
        most = -1 if limit is None else limit
        # Camera by camera: there is an order by slot only within each.
        rows = [
            record
            for name in cameras
            for record in self._select(
                "WHERE camera = ? AND slot >= ? ORDER BY slot DESC LIMIT ?",
                (name, "" if since is None else since.isoformat(), most),
            )
        ]
        rows.sort(key=lambda record: (record.slot, record.camera))
        return rows if limit is None else rows[max(0, len(rows) - limit) :]

    def cameras(self) -> list[str]:
        """Give the names of all cameras that have rows."""
        # From one to the next: the rows of a camera need not be looked through.
        rows = self._execute(
            "WITH RECURSIVE found (name) AS (SELECT min(camera) FROM brackets UNION ALL SELECT"
            " (SELECT min(camera) FROM brackets WHERE camera > name) FROM found WHERE name NOTNULL)"
            " SELECT name FROM found WHERE name NOTNULL"
        )
        return [str(name) for (name,) in rows]

    def totals(self, camera: str) -> dict[str, int]:
        """Count a camera's brackets by state."""
        # Asked every second, of a table of years: counted once, then kept up.
        if camera not in self._totals:
            rows = self._execute(
                "SELECT state, count(*) FROM brackets WHERE camera = ? GROUP BY state", (camera,)
            )
            self._totals[camera] = Counter({str(state): int(count) for state, count in rows})
        return {state: count for state, count in self._totals[camera].items() if count}

    def _state(self, camera: str, slot: datetime) -> str | None:
        rows = self._execute(
            "SELECT state FROM brackets WHERE camera = ? AND slot = ?", (camera, slot.isoformat())
        )
        return next((str(state) for (state,) in rows), None)

    def last_change(self, camera: str) -> datetime | None:
        """UTC time at which a row of this camera was last written."""
        (value,) = next(
            self._execute("SELECT max(updated_utc) FROM brackets WHERE camera = ?", (camera,))
        )
        with self._making_sense():
            return None if value is None else datetime.fromisoformat(value).astimezone(UTC)

    def check_newest(self) -> None:
        """Read what a start reads anyway, and the newest rows.

        Raises
        ------
        LedgerDamagedError
            If anything makes no sense.
        """
        for camera in self.cameras():
            self.last_change(camera)
            self.to_retry(camera, _NEVER, limit=_NEWEST)
            self.history(camera=camera, limit=_NEWEST)
        kept = (("curves", self.curves), ("offsets", self.offsets), ("marks", self.caught_up))
        for table, read in kept:
            for (camera,) in list(self._execute(f"SELECT DISTINCT camera FROM {table}")):
                read(camera)

    # -- salvaged ---------------------------------------------------------------------------

    def restore(self, salvaged: Iterable[tuple[BracketRecord, bool]]) -> int:
        """Write rows of another ledger as they are, save where a newer one stands.

        Parameters
        ----------
        salvaged : iterable of (BracketRecord, bool)
            Rows, and whether an operator wants the bracket tried again.

        Returns
        -------
        int
            How many were written.
        """
        self._totals.clear()
        rows = [(*to_row(record), int(asked)) for record, asked in salvaged]
        marks = ", ".join("?" * (len(COLUMNS) + 1))
        changes = ", ".join(f"{name} = excluded.{name}" for name in (*COLUMNS, "asked"))
        before = self._db.total_changes
        with self._transaction():
            self._db.executemany(
                f"INSERT INTO brackets ({_NAMES}, asked) VALUES ({marks}) ON CONFLICT DO UPDATE"
                f" SET {changes} WHERE excluded.updated_utc > brackets.updated_utc",
                rows,
            )
        return self._db.total_changes - before

    def _select(self, tail: str, values: tuple[Any, ...]) -> Iterator[BracketRecord]:
        # Closed in any case: an open question would keep the journal from being written back.
        with closing(self._execute(f"SELECT {_NAMES} FROM brackets {tail}", values)) as rows:
            for row in rows:
                with self._making_sense():
                    record = from_row(row)
                yield record
