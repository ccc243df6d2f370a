"""Moved to `asi_watch.live.ledger.records`; here until nobody imports it from this place."""

from asi_watch.live.ledger.records import *  # noqa: F403
