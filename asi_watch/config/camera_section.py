"""Keys of a camera's section that stand for others, put in their place before it is validated.

Those are keys of version 0.1, ``response: linear``, and asi_core's description of a camera
(``camera_data/*.yaml``).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationInfo

from asi_watch.config import values as v

_MAX_BYTES = 1 << 20
_ZONE = re.compile(r"(?:GMT|UTC)(?:([+-])(\d{1,2}))?")


def plain(data: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Return a section that says itself what is meant.

    Parameters
    ----------
    data : dict
        As read; what is wrong with it is refused here or when it is validated.
    info : ValidationInfo
        Where relative paths count from.
    """
    for step in (_linear, _tone_of_old):
        data = step(data) if isinstance(data.get("merge", {}), dict) else data
    return _described(data, info)


def _linear(data: dict[str, Any]) -> dict[str, Any]:
    if data.get("response") != "linear":
        return data
    merge = data.get("merge", {})
    if (algorithm := merge.get("algorithm", "linear")) != "linear":
        text = f"{v.shown(algorithm)} does not go with `response: linear`; remove this key"
        v.refuse_keys([("merge.algorithm", text)])
    return {**data, "response": None, "merge": {**merge, "algorithm": "linear"}}


def _tone_of_old(data: dict[str, Any]) -> dict[str, Any]:
    """Version 0.1 had two keys under `merge` for what pictures look like: they still do."""
    merge = data.get("merge", {})
    old = {key: merge[key] for key in ("gamma", "lnE_range") if key in merge}
    if not old:
        return data
    if "tone" in data:
        text = "is of version 0.1; write tone.gamma, and tone.scale: [low, high] for lnE_range"
        v.refuse_keys([(f"merge.{name}", text) for name in old])
    tone = {"operator": "gamma", "scale": old.pop("lnE_range", None) or "curve", **old}
    rest = {key: value for key, value in merge.items() if key not in ("gamma", "lnE_range")}
    return {**data, "merge": rest, "tone": tone}


def _described(data: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    if not isinstance(data.get("camera_data"), str):
        return data
    try:
        return _filled(data, section_of(v.read_path(data["camera_data"], info)))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        v.refuse_keys([("camera_data", f"{data['camera_data']!r}: {reason}")])
        raise


def section_of(path: Path) -> dict[str, Any]:
    """Return the keys of a camera's section that its description gives; OSError or ValueError.

    Parameters
    ----------
    path : Path
    """
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise ValueError("is larger than 1 MiB: this describes no camera")
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"is no YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, Mapping) or "camera_name" not in data:
        raise ValueError("describes no camera: it has no camera_name")
    found: dict[str, Any] = {"geometry": _geometry(data)}
    if "timezone" in data:
        found["timezone"] = _timezone(data["timezone"])
    if disc := _sky_disc(data):
        found["merge"] = {"sky_disc": disc}
    if exposures := _exposures(data):
        found["bracket"] = {"exposures": exposures}
    return found


def _filled(given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section with what was found where nothing is given."""
    both = {key: value for key, value in given.items() if isinstance(found.get(key), Mapping)}
    inner = {k: _filled(v, found[k]) for k, v in both.items() if isinstance(v, Mapping)}
    return {**found, **given, **inner}


def _inside(data: Mapping[str, Any], *keys: str) -> Any:
    for key in keys:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)  # type: ignore[assignment]
    return data


def _geometry(data: Mapping[str, Any]) -> dict[str, Any]:
    names = {"camera_model": "lens", "camera_mask_file": "mask"}
    kept = ("latitude", "longitude", "altitude", "external_orientation", *names)
    return {names.get(key, key): data[key] for key in kept if data.get(key) not in (None, "")}


def _timezone(text: object) -> str:
    """Turn asi_core's zones into names of the database: GMT+1 is one hour ahead there."""
    zone = str(text)
    match = _ZONE.fullmatch(zone)
    if match is None:
        if re.match(r"GMT|UTC", zone):
            raise ValueError(
                f"timezone {zone!r} has no name here; give the camera's timezone itself"
            )
        return zone
    hours = int(match[2] or 0)
    if hours == 0:
        return "UTC"
    return f"Etc/GMT{'-' if match[1] == '+' else '+'}{hours}"


def _sky_disc(data: Mapping[str, Any]) -> list[float] | None:
    center = [_inside(data, "internal_calibration", key) for key in ("xc", "yc", "diameter")]
    if not all(isinstance(value, (int, float)) for value in center):
        return None
    column, row, diameter = center
    return [column, row, diameter / 2]


def _exposures(data: Mapping[str, Any]) -> list[float] | None:
    """Exposure times of a bracket: those of the recorder, else those evaluated by day.

    None where nights have a bracket of their own: the camera's rhythm is learned then.
    """
    day = _inside(data, "daq", "process", "exposure_times")
    night = _inside(data, "daq", "process", "night_exposure_times")
    if not isinstance(day, list):
        day = _inside(data, "exposure_settings", "exposure_times", "day")
        night = _inside(data, "exposure_settings", "exposure_times", "night")
    if isinstance(night, list) and len(night) > 1 and night != day:
        return None
    return day if isinstance(day, list) and len(day) > 1 else None
