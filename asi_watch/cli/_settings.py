"""From the configuration file to the plain values that the daemon's rooms are given."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from asi_watch.brackets import BracketRules
from asi_watch.config.model import (
    CameraConfig,
    Config,
    LimitsConfig,
    MergeConfig,
    ProductConfig,
    RetentionConfig,
)
from asi_watch.config.values import Circle
from asi_watch.cores import usable_cores
from asi_watch.hdr.disc import as_sky_disc
from asi_watch.hdr.merging import MergeSettings
from asi_watch.live.settings import (
    CameraSettings,
    CurveRules,
    DaemonSettings,
    RetentionLimits,
    RetentionRules,
)
from asi_watch.live.watching.intake import IntakeRules
from asi_watch.products import ProductSpec


def daemon_settings(config: Config) -> DaemonSettings:
    """Translate a checked configuration for the daemon."""
    workers = config.workers if isinstance(config.workers, int) else usable_cores()
    return DaemonSettings(
        state_dir=config.state_dir,
        workers=workers,
        memory_budget=config.memory_budget,
        shutdown_timeout=config.shutdown_timeout.total_seconds(),
        cameras=tuple(camera_settings(name, camera) for name, camera in config.cameras.items()),
        order=config.order,
        keep_free=config.disk.keep_free,
    )


def camera_settings(name: str, camera: CameraConfig) -> CameraSettings:
    """Translate one camera's section."""
    every = camera.recalibrate.every
    return CameraSettings(
        name=name,
        output=camera.output,
        pattern=camera.name_pattern(),
        extensions=frozenset(camera.extensions),
        intake=IntakeRules(
            root=camera.watch,
            mode=camera.watch_mode,
            lookback=camera.scan.lookback.total_seconds(),
            every=camera.scan.every.total_seconds(),
            stable_for=camera.stable_for.total_seconds(),
        ),
        rules=BracketRules(
            round_to=camera.bracket.round_to,
            offset=timedelta(0) if camera.bracket.offset == "auto" else camera.bracket.offset,
            exposures=camera.expected_exposures_us,
            min_exposures=camera.bracket.min_exposures,
            grace=camera.bracket.grace.total_seconds(),
            late=camera.bracket.late,
            learn_offset=camera.bracket.offset == "auto",
        ),
        merge=merge_settings(camera.merge),
        products=tuple(product_spec(product) for product in camera.products),
        curves=CurveRules(
            response=camera.response,
            without_response=camera.without_response,
            every=None if every is None else every.total_seconds(),
            brackets=camera.recalibrate.brackets,
            sky_disc=calibration_disc(camera),
        ),
        retention=retention_rules(camera.retention),
    )


def calibration_disc(camera: CameraConfig) -> Circle | Literal["auto"] | None:
    """Say where a camera's curve is calibrated: where its brackets are merged, if not told else."""
    asked = camera.recalibrate.sky_disc
    return camera.merge.sky_disc or asked if asked == "auto" else asked


def retention_rules(retention: RetentionConfig) -> RetentionRules:
    """Translate the `retention` section."""
    return RetentionRules(
        exposures=_limits(retention.exposures),
        products=_limits(retention.products),
        dry_run=retention.dry_run,
        require_product=retention.require_product,
    )


def _limits(limits: LimitsConfig) -> RetentionLimits:
    age = limits.max_age
    return RetentionLimits(
        max_age=None if age is None else age.total_seconds(),
        max_size=limits.max_size,
        keep_free=limits.keep_free,
    )


def merge_settings(merge: MergeConfig) -> MergeSettings:
    """Translate the `merge` section."""
    return MergeSettings(
        algorithm=merge.algorithm,
        weight_type=merge.weight_type,
        low_clip=merge.low_clip,
        high_clip=merge.high_clip,
        gamma=merge.gamma,
        lnE_range=merge.lnE_range,
        saturation=merge.saturation,
        apply_tonemapping=True,
        sky_disc=as_sky_disc(merge.sky_disc),
    )


def product_spec(product: ProductConfig) -> ProductSpec:
    """Translate one entry of `products`: what the operator wrote, the rest as the format has it."""
    options = product.model_dump(exclude_none=True)
    return ProductSpec(**options)
