"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: a failure seen once is seen again. The soak runs draw new ones.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=2000)
settings.load_profile("steady")
