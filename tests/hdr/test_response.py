"""What is judged to be no camera's response curve, and what passes."""

from __future__ import annotations

import numpy as np
import pytest

from asi_watch.hdr.response import judge_curve

CODES = np.arange(256)
G = 2.2 * np.log(np.maximum(CODES, 0.5) / 128)
HUMP = 3.0 * ((CODES > 100) & (CODES < 120))
DENT = -0.1 * (CODES == 180)


def verdict(response: object) -> list[tuple[str, str]]:
    return [(p.severity, p.text) for p in judge_curve(response)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (G[::-1], "grey: falls by"),
        (np.zeros(256), "does not rise"),
        (G - CODES % 2, "falls at 127 of 255 steps"),
        (G + HUMP, "falls at 1 of 255 steps between codes, most at code 120"),
        (np.exp(G), "not their logarithm"),
        (10.0 * G, "rises by 88 stops"),
        (np.where(CODES == 7, np.nan, G), "not finite"),
        (np.where(CODES == 7, np.inf, G), "not finite"),
        (G[:200], "shape"),
        (np.stack([G, G], axis=1), "shape"),
        (["a"] * 256, "could not convert"),
        (np.stack([G, G, G[::-1]], axis=1), "red: falls by"),
    ],
)
def test_what_no_camera_has_is_refused(response: object, words: str) -> None:
    severity, text = verdict(response)[0]
    assert (severity, words in text) == ("refuse", True), text


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (G + DENT, "falls at 1 of 255 steps between codes, most at code 180"),
        (G + 20.0, "every value is positive"),
        (0.15 * G, "rises by 1.3"),
        (2.0 * G, "rises by 17.6"),
    ],
)
def test_what_is_odd_is_warned_of(response: object, words: str) -> None:
    assert [s for s, _ in verdict(response)] == ["warn"]
    assert words in verdict(response)[0][1]


@pytest.mark.parametrize(
    "response",
    [
        G,
        np.repeat(G[:, None, None], 3, axis=2),
        np.log(np.maximum(CODES, 0.5)) - 4.9,  # a straight camera
        0.02 * (CODES - 128.0),  # a logarithmic one
    ],
)
def test_what_a_camera_may_have_passes(response: object) -> None:
    assert verdict(response) == []
