"""Small scenes with known irradiance, seen through known tone curves."""

from __future__ import annotations

import cv2
import numpy as np

from asi_watch.hdr.calibration import sample_bracket

TIMES = 80.0 * 2.0 ** np.arange(5)
LN2 = np.log(2.0)


def gamma(exposure):
    return exposure ** (1 / 2.2)


def true_gamma_response():
    return 2.2 * np.log(np.maximum(np.arange(256), 0.5) / 128.0)


def log_irradiance(rng, height, width):
    """Smooth hills over about six stops, with a little colour."""
    coarse = rng.normal(0.0, 1.0, (8, 8, 1)) + rng.normal(0.0, 0.2, (8, 8, 3))
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 1.2 - 8.2


def bracket(rng, *, drift=0, tone=gamma, size=(160, 200), quality=92, times=TIMES):
    """Images of a bracket as JPEG leaves them; the scene moves `drift` columns per exposure."""
    height, width = size
    scene = log_irradiance(rng, height, width + drift * (len(times) - 1))
    images = []
    for number, time in enumerate(times):
        seen = scene[:, drift * number : drift * number + width]
        codes = np.rint(255.0 * tone(np.minimum(np.exp(seen) * time, 1.0))).astype(np.uint8)
        ok, data = cv2.imencode(".jpg", codes, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert ok
        images.append(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return images


def sampled(*, technique="random", count=600, brackets=2, times=TIMES, seed=3, **scene):
    """Samples of such brackets."""
    rng = np.random.default_rng(seed)
    return [
        sample_bracket(
            bracket(rng, times=times, **scene), times, technique=technique, count=count, rng=rng
        )
        for _ in range(brackets)
    ]


def error_stops(log_response, truth, first=15, last=240):
    """RMS over the codes first…last and the worst channel, free constant removed."""
    codes = slice(first, last + 1)
    difference = (np.asarray(log_response)[codes] - truth[codes, np.newaxis]) / LN2
    return float(difference.std(axis=0).max())
