"""Batch work over a directory or an archive: the functions of asi_core's HDR pipeline, and ours.

A script written for ``asi_core.image.hdr.pipeline`` runs after changing that one import. Exposure
times are microseconds, pixels and curves BGR; merging, encoding and publishing are done by the
same code as in the daemon.
"""

from __future__ import annotations

from asi_watch.calibrate_brackets import CalibrationChoices
from asi_watch.pipeline.archive import ArchiveSummary, merge_archive
from asi_watch.pipeline.asi_core import (
    _EXPO_RE,
    _group_files_by_time,
    _parse_exposure_from_name,
    create_and_save_hdr,
    process_directory,
    process_hdr_series,
    process_timestamp,
)
from asi_watch.pipeline.curves import (
    _save_response_plot,
    calibrate_archive,
    calibrate_camera,
    get_lne_range,
    load_response_curve,
    save_response_curve,
)
from asi_watch.pipeline.find_brackets import ArchiveRules

__all__ = [
    "_EXPO_RE",
    "ArchiveRules",
    "ArchiveSummary",
    "CalibrationChoices",
    "_group_files_by_time",
    "_parse_exposure_from_name",
    "_save_response_plot",
    "calibrate_archive",
    "calibrate_camera",
    "create_and_save_hdr",
    "get_lne_range",
    "load_response_curve",
    "merge_archive",
    "process_directory",
    "process_hdr_series",
    "process_timestamp",
    "save_response_curve",
]
