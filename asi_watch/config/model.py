"""The configuration as frozen values. Every default of asi-watch stands in this file alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from asi_watch import naming
from asi_watch.brackets import TOLERANCE, ExposureTimes
from asi_watch.config import camera_section
from asi_watch.config import values as v
from asi_watch.naming import ExposureUnit, NamePattern

if TYPE_CHECKING:
    from asi_watch.hdr.merge_settings import MergeSettings
    from asi_watch.products.spec import ProductSpec

RADIANCE_FORMATS = ("exr", "tiff", "hdr")
"""Products that hold the radiance map, which needs a response curve."""

PRODUCT_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "jpg": {"quality": 95, "subsampling": "420", "keep_camera_header": False, "gain_map": False},
    "jp2": {"lossless": False},
    "exr": {"compression": "piz", "pixel_type": "auto", "uncertainty": False},
}
"""The options of the formats that have some, with their defaults."""


_PLACE = ("name", "timezone", "output", "latest")

Order = Literal["newest", "oldest"]


class Section(BaseModel):
    """One mapping of the file: unknown keys and wrong types are refused, values never change.

    What stands below a field describes it in the JSON Schema too.
    """

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class LogConfig(Section):
    """What is logged, and how a line looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["logfmt", "json"] = "logfmt"


class ScanConfig(Section):
    """How the folder itself is read, which finds what events missed."""

    lookback: Annotated[v.Duration, v.within("0s", "36500d")] = timedelta(days=2)
    every: Annotated[v.Duration, v.within("1s", "24h")] = timedelta(seconds=60)


class BracketConfig(Section):
    """Which exposures belong together, and how long they are waited for."""

    round_to: Annotated[v.Duration, v.within("1s", "24h")] = timedelta(seconds=30)
    offset: v.Duration = timedelta(0)
    exposures: v.ExposuresField = "auto"
    """Times in the camera's `exposure_unit`, their count, or auto: learned."""
    min_exposures: int = Field(default=3, ge=2, le=64)
    grace: Annotated[v.Duration, v.within("0s", "24h")] = timedelta(seconds=10)
    late: Literal["remerge", "ignore"] = "remerge"

    @property
    def expected_count(self) -> int | None:
        """How many exposures make a bracket complete; None when that is learned."""
        if self.exposures == "auto":
            return None
        return self.exposures if isinstance(self.exposures, int) else len(self.exposures)

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = []
        round_to = v.format_duration(self.round_to)
        if self.round_to % timedelta(seconds=1):
            text = f"{round_to} is no whole number of seconds, which products are named by"
            found.append(("round_to", f"{text}; write one such as 30s"))
        if abs(self.offset) >= self.round_to:
            offset = v.format_duration(self.offset)
            found.append(("offset", f"{offset} must be smaller than round_to, which is {round_to}"))
        count = self.expected_count
        if count is not None and self.min_exposures > count:
            text = f"{self.min_exposures} can never be reached; a bracket has {count} exposures"
            found.append(("min_exposures", text))
        v.refuse_keys(found)
        return self


class SensorConfig(Section):
    """What the codes of a linear camera mean."""

    black: float | None = Field(default=None, ge=0)
    """Code without light; None: as the file says, else 0."""
    white: float | None = Field(default=None, gt=0)
    """Lowest saturated code; None: as the file says, else the largest code."""
    gain: float | None = Field(default=None, gt=0)
    """Electrons per code; None: 15,000 electrons from black to white."""
    read_noise: float = Field(default=5.0, ge=0)
    """Electrons."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.white is not None and self.white <= (self.black or 0.0):
            text = f"{self.white:g} must be larger than black, which is {self.black or 0:g}"
            v.refuse_keys([("white", text)])
        return self


class MergeConfig(Section):
    """How the exposures of a bracket become one picture."""

    algorithm: Literal["debevec_exact", "debevec_custom", "debevec", "mertens", "linear"] = (
        "debevec_exact"
    )
    sensor: SensorConfig = SensorConfig()
    """Of `linear` alone, which `response: linear` chooses."""
    weight_type: Literal["triangle", "sine", "noise"] = "triangle"
    low_clip: int = Field(default=5, ge=0, le=254)
    high_clip: int = Field(default=250, ge=1, le=255)
    saturation: int = Field(default=255, ge=1, le=255)
    sky_disc: v.Disc = None
    """What is merged: column, row and radius in pixels; None: all of the picture."""
    contradiction: Literal["exclude", "warn"] = "exclude"
    """An exposure that contradicts its exposure time while the others agree: left out or not."""
    deghost: v.Deghost = "weights"
    """Clouds that moved: `weights`: the middle exposure counts; `align`: they are moved back."""

    @property
    def needs_curve(self) -> bool:
        """True if exposures are merged through a response curve."""
        return self.algorithm not in ("mertens", "linear")

    def settings(self, tone: ToneConfig) -> MergeSettings:
        """Give the same values for `asi_watch.hdr`.

        Parameters
        ----------
        tone : ToneConfig
            Beside this section.
        """
        # Imported here: reading a configuration must not wait for NumPy.
        from asi_watch.hdr.disc import as_sky_disc
        from asi_watch.hdr.merge_settings import MergeSettings, Sensor, Tone

        values = {name: getattr(self, name) for name in type(self).model_fields}
        values["sky_disc"] = as_sky_disc(self.sky_disc)
        values["sensor"] = Sensor(**self.sensor.model_dump())
        shown = tone.model_dump()
        values["gamma"], scale = shown.pop("gamma"), shown.pop("scale")
        if isinstance(scale, tuple):
            values["lnE_range"], scale = scale, "curve"
        return MergeSettings(**values, tone=Tone(**shown, scale=scale))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low_clip >= self.high_clip:
            text = f"{self.low_clip} must be smaller than high_clip, which is {self.high_clip}"
            v.refuse_keys([("low_clip", text)])
        return self


class ToneConfig(Section):
    """How radiance is shown in pictures; a parameter belongs to the operator that it names."""

    operator: Literal["photographic", "gamma", "reinhard", "drago", "mantiuk", "local"] = (
        "photographic"
    )
    scale: v.ToneScale = "curve"
    """Where the ln E of the middle and of white (`gamma`: of black and of white) come from."""
    key: float = Field(default=0.18, ge=0.01, le=1)
    gamma: float = Field(default=2.2, ge=0.1, le=10)
    adaptation: float = Field(default=0.0, ge=0, le=1)
    bias: float = Field(default=0.85, ge=0.5, le=1)
    contrast: float = Field(default=0.7, ge=0.1, le=2)
    detail: float = Field(default=1.3, ge=0, le=5)


class ProductConfig(Section):
    """One file written for every merged bracket; an option belongs to one format."""

    format: Literal["jpg", "png", "jp2", "exr", "tiff", "hdr"]
    name: v.ProductTemplate = naming.PRODUCT_TEMPLATE
    timezone: v.FixedTimeZone | None = None
    """Of the name; None: that of the camera."""
    output: v.PathField | None = None
    """Folder of its own; None: that of the camera."""
    latest: bool = False
    """Also as `latest.FORMAT` at the root of its folder."""
    quality: int | None = Field(default=None, ge=1, le=100)
    subsampling: v.Subsampling = None
    keep_camera_header: bool | None = None
    gain_map: bool | None = None
    lossless: bool | None = None
    compression: Literal["none", "zip", "piz", "htj2k"] | None = None
    pixel_type: Literal["auto", "half", "float"] | None = None
    uncertainty: bool | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of this format, each with its value."""
        return {name: getattr(self, name) for name in PRODUCT_OPTIONS.get(self.format, {})}

    @property
    def spec(self) -> ProductSpec:
        """The same values for `asi_watch.products`."""
        # Imported here: reading a configuration must not wait for the codecs.
        from asi_watch.products.spec import ProductSpec

        place = {key: getattr(self, key) for key in _PLACE}
        return ProductSpec(self.format, **self.options, **place)

    def dump(self) -> dict[str, Any]:
        """The values as a file states them: those that this format has, or that are not default."""
        fields = type(self).model_fields
        unsaid = {key for key in _PLACE if getattr(self, key) == fields[key].default}
        return self.model_dump(mode="json", exclude_none=True, exclude=unsaid)

    @model_validator(mode="before")
    @classmethod
    def _fill_options(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("format"), str):
            return data
        return {**PRODUCT_OPTIONS.get(data["format"], {}), **data}

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = []
        for owner, options in PRODUCT_OPTIONS.items():
            given = self.model_fields_set & set(options) if owner != self.format else set()
            text = f"is an option of {owner}, not of {self.format}; remove it"
            found += [(name, text) for name in sorted(given)]
        v.refuse_keys(found)
        return self


class GeometryConfig(Section):
    """Where a camera stands and how it looks: noted in its products, and not used otherwise."""

    latitude: float | None = Field(default=None, ge=-90, le=90)
    longitude: float | None = Field(default=None, ge=-180, le=180)
    altitude: float | None = Field(default=None, ge=-500, le=9000)
    """Metres above sea level."""
    lens: str | None = Field(default=None, max_length=100)
    direction: float | None = Field(default=None, ge=0, lt=360)
    """Azimuth of the picture's upper edge, in degrees east of north."""
    external_orientation: Annotated[tuple[float, float, float], Field(strict=False)] | None = None
    """Rotation about three axes in radians, as asi_core has it."""
    mask: str | None = None
    """File of the obstacle mask."""

    @property
    def values(self) -> dict[str, float | str]:
        """What is known, as products carry it."""
        found = {key: getattr(self, key) for key in type(self).model_fields}
        turned = self.external_orientation
        if turned is not None:
            found["external_orientation"] = " ".join(f"{angle:.10g}" for angle in turned)
        return {key: value for key, value in found.items() if value is not None}


class ExpectConfig(Section):
    """How often exposures come; without it, that is learned."""

    every: Annotated[v.Duration, v.within("1s", "24h")]
    first: v.TimeOfDay = Field(default=time(0), alias="from")
    """Time of day, in the clock of the file names."""
    last: v.TimeOfDay = Field(default=time(0), alias="until")
    """Equal to `from`: the whole day."""
    sun_above: float | None = Field(default=None, ge=-90, le=90)
    """Only while the sun stands higher than so many degrees; needs the camera's geometry."""


class RecalibrateConfig(Section):
    """When a new response curve is derived from recent brackets."""

    every: Annotated[v.DurationOrNever, v.within("1s", "3650d")] = timedelta(hours=24)
    """None means never."""
    brackets: int = Field(default=10, ge=1, le=1000)
    sky_disc: v.DiscOrAuto = "auto"
    """Where samples are taken from: column, row and radius in pixels; None: anywhere.

    ``auto``: from `MergeConfig.sky_disc` if there is one, else from the disc that pictures show.
    """


class LimitsConfig(Section):
    """What is kept of one kind of files; None means no limit."""

    max_age: Annotated[v.AgeOrNever, v.within("1h", "36500d")] = None
    keep_free: v.Size | None = None

    @property
    def any(self) -> bool:
        """True if there is a limit."""
        return not (self.max_age is None and self.keep_free is None)

    @model_validator(mode="before")
    @classmethod
    def _without_size(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "max_size" not in data:
            return data
        if data["max_size"] is not None:
            text = "is no longer possible; write max_age, such as 30d, or keep_free, such as 50GB"
            v.refuse_keys([("max_size", text)])
        # Version 0.1 wrote it into complete configurations.
        return {key: value for key, value in data.items() if key != "max_size"}


class RetentionConfig(Section):
    """What is deleted of a camera's files, oldest first; without limits nothing is."""

    exposures: LimitsConfig = LimitsConfig()
    products: LimitsConfig = LimitsConfig()
    dry_run: bool = True
    """Only report what would be deleted."""
    require_product: bool = True
    """An exposure goes only while its products are in place."""


class DiskConfig(Section):
    """When writing pauses."""

    keep_free: v.Size | None = 500_000_000
    """Bytes; None: never."""


def _refuse_in_file(name: str, info: ValidationInfo) -> str:
    if info.context is not None:
        raise v.refusal("this key is unknown; the name of a camera is the key of its section")
    return name


@lru_cache(maxsize=64)
def _compiled(
    template: str,
    unit: ExposureUnit,
    labels: tuple[tuple[str, float | None], ...],
    timezone: str,
    labels_only: bool,
    exposure_needed: bool,
) -> NamePattern:
    options = {"labels_only": labels_only, "exposure_needed": exposure_needed}
    return NamePattern(template, unit, dict(labels), timezone, **options)


_product_name = lru_cache(maxsize=64)(naming.ProductName)


class CameraConfig(Section):
    """One camera: where its files arrive, what they are named, what becomes of them."""

    name: Annotated[str, BeforeValidator(_refuse_in_file)] = Field(default="", exclude=True)
    """The key of its section in the file."""
    watch: v.PathField
    output: v.PathField
    staging: v.PathField | None = None
    """Where temporary files of products lie; None: a hidden folder in each output folder."""
    response: v.PathField | None = None
    without_response: Literal["mertens", "wait"] = "mertens"
    filename: v.Template = "{timestamp:%Y%m%d%H%M%S}_{exposure}"
    extensions: v.Extensions = ("jpg", "jpeg", "png", "jp2")
    exposure_from: Literal["name", "metadata", "auto"] = "name"
    """`auto`: the metadata where they state it, else the name."""
    exposure_tolerance: float = Field(default=TOLERANCE, ge=0, le=0.5)
    """How far an exposure time may lie from the name's, or one that is listed: a share."""
    exposure_unit: ExposureUnit = "us"
    exposure_labels: v.Labels = Field(default_factory=dict)
    exposure_labels_only: bool = True
    """With labels: a number that is no label is not taken for an exposure time."""
    timezone: v.TimeZone = "UTC"
    camera_data: v.PathField | None = None
    """asi_core's description of the camera: what it gives stands where nothing is given here."""
    geometry: GeometryConfig = GeometryConfig()
    watch_mode: Literal["auto", "events", "polling"] = "auto"
    scan: ScanConfig = ScanConfig()
    stable_for: Annotated[v.Duration, v.within("0s", "1h")] = timedelta(seconds=1)
    bracket: BracketConfig = BracketConfig()
    merge: MergeConfig = MergeConfig()
    tone: ToneConfig = ToneConfig()
    products: Annotated[tuple[ProductConfig, ...], Field(strict=False, min_length=1)] = (
        ProductConfig(format="jpg"),
    )
    expect: ExpectConfig | None = None
    """When exposures are missed; None: when the camera is silent for longer than usual."""
    recalibrate: RecalibrateConfig = RecalibrateConfig()
    retention: RetentionConfig = RetentionConfig()

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any, info: ValidationInfo) -> Any:
        return camera_section.plain(data, info) if isinstance(data, dict) else data

    @property
    def pattern(self) -> NamePattern:
        """The compiled pattern of this camera's file names."""
        labels: dict[str, float | None] = dict(self.exposure_labels)
        listed = self.bracket.exposures
        if labels and isinstance(listed, tuple):
            # An exposure that is expected and has no label is written as a number.
            numbers = {f"{time:.15g}": time for time in listed if time not in labels.values()}
            labels = {**numbers, **labels}
        return _compiled(
            self.filename,
            self.exposure_unit,
            tuple(labels.items()),
            self.timezone,
            self.exposure_labels_only,
            self.exposure_from == "name",
        )

    def wants(self, filename: str) -> bool:
        """Tell by its name whether a file may be an exposure; uploads are hidden until done.

        Parameters
        ----------
        filename : str
            Without folders.
        """
        suffix = filename.rpartition(".")[2].lower()
        return suffix in self.extensions and not self.is_known(filename)

    def is_known(self, filename: str) -> bool:
        """Tell whether it is for a reason that no exposure has this name.

        Parameters
        ----------
        filename : str
        """
        return (
            naming.is_hidden(filename)
            or self.is_product(filename)
            or (None in self.exposure_labels.values() and self.pattern.leaves_out(filename))
        )

    def is_product(self, filename: str) -> bool:
        """Tell by its name whether a file may be one of the camera's products.

        Parameters
        ----------
        filename : str
        """
        if naming.is_product_name(filename) or filename.rpartition(".")[0] == "latest":
            return True
        own = (p for p in self.products if p.name != naming.PRODUCT_TEMPLATE)
        return any(_product_name(p.name, self.name).fits(filename) for p in own)

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All folders that products go below, that of the camera first."""
        own = (product.output for product in self.products)
        return tuple(dict.fromkeys((self.output, *(path for path in own if path is not None))))

    def place_of(self, product: str) -> tuple[Path, PurePosixPath]:
        """Return the output folder that a product lies below, and its path there.

        Parameters
        ----------
        product : str
            As the ledger has it: relative to `output`, or absolute.
        """
        where = PurePosixPath(product)
        if not where.is_absolute():
            return self.output, where
        root = next((path for path in self.outputs if where.is_relative_to(path)), Path("/"))
        return root, where.relative_to(root)

    @property
    def merge_settings(self) -> MergeSettings:
        """How brackets are merged and shown, for `asi_watch.hdr`."""
        return self.merge.settings(self.tone)

    @property
    def calibration_disc(self) -> v.Circle | Literal["auto"] | None:
        """Where the curve is calibrated: where brackets are merged, if nothing else is asked."""
        asked = self.recalibrate.sky_disc
        return self.merge.sky_disc or asked if asked == "auto" else asked

    @property
    def expected_exposures_us(self) -> v.Exposures:
        """Exposure times in µs that make a bracket complete, or their count, or ``auto``."""
        exposures = self.bracket.exposures
        if not isinstance(exposures, tuple):
            return exposures
        return tuple(float(e * naming.MICROSECONDS_PER_UNIT[self.exposure_unit]) for e in exposures)

    @property
    def exposure_times(self) -> ExposureTimes:
        """Where the exposure times come from, and what they are compared with."""
        return ExposureTimes(
            self.exposure_from, self.exposure_tolerance, self.expected_exposures_us
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        found: list[tuple[str, str]] = []
        try:
            _ = self.pattern
        except ValueError as error:
            found.append(("filename", str(error)))
        formats = [product.format for product in self.products]
        found += self._product_problems()
        place = (self.geometry.latitude, self.geometry.longitude)
        if self.expect and self.expect.sun_above is not None and None in place:
            text = "give geometry.latitude and geometry.longitude, or say from and until"
            found.append(("expect.sun_above", text))
        radiance = [f for f in formats if f in RADIANCE_FORMATS]
        if self.merge.algorithm == "debevec" and any(p.uncertainty for p in self.products):
            text = "OpenCV's debevec gives no uncertainty; choose debevec_custom or debevec_exact"
            found.append(("merge.algorithm", text))
        if self.merge.algorithm == "linear" and self.response is not None:
            text = "a linear merge takes no response curve; write linear here or remove this key"
            found.append(("response", text))
        wanted = [*radiance, *("a gain map" for product in self.products if product.gain_map)]
        if self.merge.algorithm == "mertens" and wanted:
            text = f"mertens gives no radiance for {' and '.join(wanted)}; choose debevec_custom"
            found.append(("merge.algorithm", text))
        v.refuse_keys(found)
        return self

    def _product_problems(self) -> Iterator[tuple[str, str]]:
        moment, seen = datetime(2010, 10, 10, 10, 10, 10, tzinfo=UTC), set[Path]()
        for product in self.products:
            name = _product_name(product.name, self.name).stem(moment) + f".{product.format}"
            target = (product.output or self.output) / name
            if target in seen:
                text = f"two of format {product.format} have one path; give one another name"
                yield "products", f"{text} or output"
            seen.add(target)
            latest = (product.output or self.output) / f"latest.{product.format}"
            if product.latest and latest in seen:
                text = f"two of format {product.format} would be {latest.name} of one folder"
                yield "products", f"{text}; keep latest: true for one of them"
            if product.latest:
                seen.add(latest)
            with suppress(ValueError):
                if self.pattern.parse(name) is not None:
                    text = f"{product.name!r} is a name that an exposure may have, such as {name}"
                    yield "products", f"{text}; end it with other text, such as _0"


def _named(cameras: dict[str, CameraConfig]) -> dict[str, CameraConfig]:
    return {key: camera.model_copy(update={"name": key}) for key, camera in cameras.items()}


class Config(Section):
    """The whole configuration file."""

    state_dir: v.PathField = Path("/var/lib/asi-watch")
    log: LogConfig = LogConfig()
    workers: v.Workers = "auto"
    """Threads that decode and merge; auto is one for each core."""
    memory_budget: v.Size = 512_000_000
    """Bytes for decoded exposures, and for one merge."""
    order: Order = "oldest"
    """Which brackets of a backlog go first."""
    disk: DiskConfig = DiskConfig()
    shutdown_timeout: Annotated[v.Duration, v.within("1s", "10min")] = timedelta(seconds=20)
    cameras: Annotated[dict[v.CameraName, CameraConfig], AfterValidator(_named)] = Field(
        min_length=1
    )

    @property
    def worker_count(self) -> int:
        """Threads that decode and merge."""
        from asi_watch.processes import usable_cores

        return self.workers if isinstance(self.workers, int) else usable_cores()
