"""``python -m tests.machine.eager run -c …``: the real daemon, but nothing is forced to the disk.

With it, the test of the power cuts must fail; else it shows nothing.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from typing import Any

from asi_watch.cli import main

_connect: Any = sqlite3.connect


class _Hasty(sqlite3.Connection):
    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("synchronous = FULL", "synchronous = OFF"), *values)


if __name__ == "__main__":
    os.fsync = lambda _: None  # type: ignore[assignment]
    sqlite3.connect = lambda *a, **k: _connect(*a, **{"factory": _Hasty, **k})
    sys.exit(main())
