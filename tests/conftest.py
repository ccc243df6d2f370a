"""Settings that all tests share."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# As the commands have it (asi_watch/cli/__init__.py): on cores that others use as well, NumPy's
# threads wait for one another, and what takes seconds takes a minute.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A machine that is slow, or stands still for seconds, is no fault of what is tested.
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

# The same examples in every run: a failure seen once is seen again. The soak runs draw new ones.
settings.register_profile("steady", derandomize=True, database=None, **PATIENT)
settings.register_profile("soak", max_examples=2000, **PATIENT)
settings.load_profile("steady")
