from __future__ import annotations

import numpy as np

from asi_watch.buffers import BufferPool


def test_the_smallest_buffer_that_fits_is_taken() -> None:
    pool = BufferPool(1000)
    large, small = pool.take(500), pool.take(100)
    pool.give(large)
    pool.give(small)
    assert pool.idle_bytes == 600
    assert pool.take(90) is small
    assert pool.take(90) is large
    assert pool.idle_bytes == 0
    assert pool.take(90).nbytes == 90


def test_a_view_gives_back_the_memory_behind_it() -> None:
    pool = BufferPool(1000)
    flat = pool.take(120)
    pool.give(flat[:60].reshape(4, 5, 3))
    assert pool.take(120) is flat


def test_nothing_is_kept_twice_or_beyond_the_limit_or_of_another_kind() -> None:
    pool = BufferPool(100)
    kept = pool.take(80)
    pool.give(kept)
    pool.give(kept)
    pool.give(np.empty(40, np.uint8))
    pool.give(np.empty((2, 2), np.float32))
    assert pool.idle_bytes == 80
