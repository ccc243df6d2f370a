"""Weights and the noise model."""

from __future__ import annotations

import numpy as np
import pytest

from asi_watch.hdr.lookup_tables import FULL_WELL, READ_NOISE, _log_variance, weight_table
from asi_watch.hdr.merge_settings import WEIGHT_TYPES
from tests.hdr.brackets import curve


def test_triangle_and_sine_are_their_formulas():
    triangle, sine = weight_table("triangle")[:, 0], weight_table("sine")[:, 0]
    z = np.arange(256)
    np.testing.assert_array_equal(triangle, np.where(z <= 127.5, z, 255 - z))
    np.testing.assert_allclose(sine, np.cos(2 * np.pi * z / 255 - np.pi) + 1, atol=1e-12)


@pytest.mark.parametrize("name", WEIGHT_TYPES)
def test_every_weight_is_zero_at_the_ends_alone(name):
    table = weight_table(name, curve())
    assert table.shape == (256, 3)
    assert (table[[0, 255]] == 0).all()
    assert (table[1:255] > 0).all()


def test_noise_weight_is_inverse_variance_with_a_roll_off():
    """Of shot, read and quantisation noise, and of two codes by JPEG."""
    table, slope = weight_table("noise", curve()), np.gradient(curve().astype(float), axis=0)
    product = table * (_log_variance(curve()) + (2 * slope) ** 2)
    np.testing.assert_allclose(product[40:161], np.broadcast_to(product[100], (121, 3)), rtol=1e-9)
    assert (np.diff(product[161:251], axis=0) < 0).all()
    assert table[250].max() < 0.02
    assert table.max() == 1.0


def test_variance_is_that_of_shot_read_and_quantisation_noise():
    """A pixel of n electrons knows ln E to (n + r²) / n², plus quantisation."""
    g = curve(1)
    n = FULL_WELL * np.exp(g[:, 0] - g.max())
    slope = np.gradient(g[:, 0].astype(float))
    wanted = (n + READ_NOISE**2) / n**2 + slope**2 / 12
    np.testing.assert_allclose(_log_variance(g)[:, 0], wanted, rtol=1e-6)


def test_unknown_or_impossible_weights():
    with pytest.raises(ValueError, match="weight_type"):
        weight_table("hat")
    with pytest.raises(ValueError, match="response"):
        weight_table("noise")
