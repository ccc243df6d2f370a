"""Tests that need a whole machine of their own: power cuts, and network shares that go away.

``python -m tests.machine`` (see `__main__`); nothing here runs in `make test` but the tests of
its own parts.
"""
