"""What the clouds of a rendered sky are like."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Weather:
    """What the clouds are like.

    Parameters
    ----------
    cover : float
        Threshold of the cumulus field in standard deviations: lower is more cloud.
    cirrus : float
        Largest optical depth of the cirrus veil.
    wind_kmh : float
        Wind speed at the cumulus base.
    wind_to_deg : float
        Direction the cumulus moves to, degrees from north by east.
    """

    cover: float = 0.50
    cirrus: float = 0.5
    wind_kmh: float = 32.0
    wind_to_deg: float = 65.0

    @property
    def wind(self) -> tuple[float, float]:
        """Velocity (east, north) in km/s."""
        angle = math.radians(self.wind_to_deg)
        return (
            math.sin(angle) * self.wind_kmh / 3600,
            math.cos(angle) * self.wind_kmh / 3600,
        )
