"""Where things lie on the data disk, and the configuration of the daemon that works there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

EXPOSURES = [80, 160, 320, 640, 1280]
MIN_EXPOSURES = 3
SIZE = 128


@dataclass(frozen=True)
class Place:
    """Folders of a camera and its daemon.

    Parameters
    ----------
    data : Path
        Where the data disk is mounted.
    watch, output : Path
        Default: on the data disk.
    """

    data: Path
    watch: Path = Path()
    output: Path = Path()

    def __post_init__(self) -> None:
        for name, folder in (("watch", "in"), ("output", "out")):
            if getattr(self, name) == Path():
                object.__setattr__(self, name, self.data / folder)

    @property
    def state(self) -> Path:
        return self.data / "state"

    @property
    def config(self) -> Path:
        return self.data / "asi-watch.yaml"

    @property
    def response(self) -> Path:
        return self.data / "response.npz"

    @property
    def writers(self) -> Path:
        return self.data / "writers"

    def configuration(self, **camera: Any) -> bytes:
        """Give the configuration file: one camera at a quick pace."""
        roof = {
            "watch": str(self.watch),
            "output": str(self.output),
            "response": str(self.response),
            "bracket": {"exposures": EXPOSURES, "grace": "1s", "min_exposures": MIN_EXPOSURES},
            "scan": {"every": "1s"},
            "stable_for": "200ms",
            "products": [{"format": "jpg"}, {"format": "exr", "compression": "zip"}],
            "recalibrate": {"every": "never"},
            **camera,
        }
        document = {
            "state_dir": str(self.state),
            "disk": {"keep_free": "1MiB"},
            "cameras": {"roof": roof},
        }
        return yaml.safe_dump(document).encode()
